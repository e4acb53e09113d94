"""Counts of hot paths and recognizers reach the metrics by name."""

from __future__ import annotations

from prometheus_client import REGISTRY

from edge import metrics
from edge.asr.embedded import EmbeddedCounts
from edge.audio.stats import TrackStats
from edge.ingest.counts import IngestCounts
from edge.session.meters import Meters


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_interims_a_slow_machine_skips_are_a_metric() -> None:
    counts = EmbeddedCounts()
    Meters(IngestCounts()).watch_recognizer("embedded", counts)
    labels = {"provider": "embedded", "event": "interims_skipped"}
    before = value("edgescribe_recognizer_events_total", **labels)
    counts.interims_skipped += 3
    metrics.FLUSHER.flush()
    assert value("edgescribe_recognizer_events_total", **labels) == before + 3


def test_a_track_is_counted_while_it_runs_and_once_more_when_it_ends() -> None:
    meters, stats = Meters(IngestCounts()), TrackStats()
    before = value("edgescribe_packets_total", outcome="decoded")
    meters.track_opened(stats)
    stats.decoded += 5
    metrics.FLUSHER.flush()
    stats.decoded += 2
    meters.track_closed(stats)
    stats.decoded += 100
    metrics.FLUSHER.flush()
    assert value("edgescribe_packets_total", outcome="decoded") == before + 7


def test_codes_that_clients_make_up_are_one_series() -> None:
    """Clients may close with any of 2,000 codes; each would stay in the metrics for ever."""
    meters, name = Meters(IngestCounts()), "otp_client_websocket_close_total"
    before = {code: value(name, code=code) for code in ("1001", "4009", "other")}
    for code in (1001, 4009, 3000, 4007, 4999):
        meters.connection_closed(code)
    after = {code: value(name, code=code) - before[code] for code in before}
    assert after == {"1001": 1, "4009": 1, "other": 3}
