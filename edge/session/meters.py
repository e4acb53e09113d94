"""What a worker's sessions and tracks count, carried into the metrics.

Hot paths count in plain integers; this names the counters they end up in. Called on the event loop.
"""

from __future__ import annotations

import msgspec
from prometheus_client import Counter

from edge import metrics
from edge.audio.stats import TrackStats
from edge.ingest.counts import IngestCounts
from edge.session.dump import DumpCounts
from edge.session.ledger import LedgerCounts

_PACKETS = Counter("edgescribe_packets", "Packets of tracks, by what became of them", ["outcome"])
_LOST_PACKETS = Counter(
    "edgescribe_lost_packets", "Packets that never came, by what stands in their place", ["filled"]
)
_REORDERED = Counter("edgescribe_reordered_packets", "Late packets put in their place")
_SILENCE_MS = Counter("edgescribe_silence_milliseconds", "Silence put in for DTX, mute and gaps")
_JUMPS = Counter("edgescribe_clock_jumps", "Times a session clock moved against its audio")
_CONTAINER_FAULTS = Counter(
    "edgescribe_container_faults", "Parts of Ogg and WebM streams that were missing or damaged"
)
_SHED_MS = Counter(
    "edgescribe_audio_shed_milliseconds",
    "Audio passed over because the worker had no time to decode it",
)
_OVERFLOW_MS = Counter(
    "edgescribe_overflow_dropped_milliseconds",
    "Audio dropped because no recognizer took it in time",
)
_REFUSED_EVENTS = Counter(
    "edgescribe_refused_events", "Client messages that were not used", ["reason"]
)
_SLOWED = Counter(
    "edgescribe_connections_slowed",
    "Times a connection over its pace, or too far ahead of what is played, was left unread",
)

_RECOGNIZER_EVENTS = Counter(
    "edgescribe_recognizer_events",
    "What recognizers count beside transcripts and errors; interims_skipped: a machine too slow",
    ["provider", "event"],
)

_RECORDED = Counter(
    "edgescribe_recording_lines",
    "Lines of recordings; dropped: the disk did not take them",
    ["outcome"],
)
_DUMP_COUNTERS = {name: _RECORDED.labels(name) for name in ("written", "dropped")}

_ENTRIES = Counter(
    "edgescribe_log_entries",
    "Entries for session logs; dropped: the store was away for too long, refused: others had it",
    ["outcome"],
)
_LEDGER_COUNTERS = {
    **{name: _ENTRIES.labels(name) for name in ("appended", "dropped", "refused")},
    "superseded": Counter("edgescribe_tracks_superseded", "Tracks that a newer client took over"),
    "histories_lost": Counter("edgescribe_histories_lost", "Times a log was another one"),
}

_TRACK_COUNTERS = {
    **{
        outcome: _PACKETS.labels(outcome)
        for outcome in ("received", "decoded", "corrupt", "late", "duplicate", "empty", "unplayed")
    },
    **{
        filled: _LOST_PACKETS.labels(filled)
        for filled in ("lost", "recovered_fec", "concealed", "silenced", "skipped")
    },
    "reordered": _REORDERED,
    "silence_ms": _SILENCE_MS,
    "jumps": _JUMPS,
    "container_faults": _CONTAINER_FAULTS,
    "overflow_dropped_ms": _OVERFLOW_MS,
    "shed_ms": _SHED_MS,
}
_INGEST_COUNTERS = {
    "audio_packets": metrics.CLIENT_AUDIO_CHUNKS,
    "audio_bytes": metrics.CLIENT_AUDIO_BYTES,
    "bad_events": _REFUSED_EVENTS.labels("bad"),
    "ignored_events": _REFUSED_EVENTS.labels("ignored"),
    "empty_payloads": _REFUSED_EVENTS.labels("empty"),
    "refused_packets": _REFUSED_EVENTS.labels("tag_refused"),
    "slowed": _SLOWED,
}
_CLOSE_CODES = frozenset((*range(1000, 1016), 4001, 4003, 4004, 4008, 4009, 4029))
"""Codes of RFC 6455 and our own; what else clients close with is one series, not thousands."""


class Meters:
    """The counters of one worker's gateway."""

    def __init__(self, ingest: IngestCounts) -> None:
        metrics.FLUSHER.watch(ingest, _INGEST_COUNTERS)
        self.recognizers = metrics.RecognizerMetrics()

    def watch_ledger(self, counts: LedgerCounts) -> None:
        """Carry what becomes of log entries into the metrics."""
        metrics.FLUSHER.watch(counts, _LEDGER_COUNTERS)

    def watch_dumps(self, counts: DumpCounts) -> None:
        """Carry what recordings took and lost into the metrics."""
        metrics.FLUSHER.watch(counts, _DUMP_COUNTERS)

    def watch_recognizer(self, provider: str, counts: msgspec.Struct) -> None:
        """Carry a recognizer's own counts into the metrics."""
        labels = {
            name: _RECOGNIZER_EVENTS.labels(provider, name) for name in counts.__struct_fields__
        }
        metrics.FLUSHER.watch(counts, labels)

    def session_opened(self, provider: str) -> None:
        """A client's session began, with this recognizer as its first choice."""
        metrics.SESSION_STARTS.labels(provider).inc()

    def session_reattached(self) -> None:
        """A connection went on with a session there was."""
        metrics.SESSION_REATTACHMENTS.inc()

    def session_closed(self, duration_s: float) -> None:
        """A session is over, its last finals included."""
        metrics.SESSION_DURATION.observe(duration_s)

    def connection_closed(self, close_code: int) -> None:
        """A connection that had a session is over."""
        code = str(close_code) if close_code in _CLOSE_CODES else "other"
        metrics.CLIENT_CLOSES.labels(code).inc()

    def track_opened(self, stats: TrackStats) -> None:
        """Begin to carry a track's counts into the metrics."""
        metrics.FLUSHER.watch(stats, _TRACK_COUNTERS)

    def track_closed(self, stats: TrackStats) -> None:
        """Take the last of a track's counts."""
        metrics.FLUSHER.unwatch(stats)

    def delivered(self, provider: str, is_interim: bool) -> None:
        """A transcript went to its client."""
        metrics.delivered(provider, is_interim)

    def final_latency(self, provider: str, seconds: float) -> None:
        """A final came so long after the last audio of its utterance."""
        metrics.final_latency(provider, seconds)
