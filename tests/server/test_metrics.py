"""Plain integers reach the counters exactly once, however often and from wherever they are read."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter

from edge.metrics import Flusher


@dataclass
class Stats:
    packets: int = 0
    lost: int = 0


def counters() -> tuple[CollectorRegistry, dict[str, Counter]]:
    registry = CollectorRegistry()
    outcome = Counter("packets", "Packets", ["outcome"], registry=registry)
    return registry, {"packets": outcome.labels("received"), "lost": outcome.labels("lost")}


def value(registry: CollectorRegistry, outcome: str) -> float:
    return registry.get_sample_value("packets_total", {"outcome": outcome}) or 0.0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 100), st.booleans()), max_size=40))
def test_every_gain_of_every_source_is_counted_once(steps: list[tuple[int, int, bool]]) -> None:
    registry, into = counters()
    flusher = Flusher()
    sources = [Stats() for _ in range(4)]
    for source in sources:
        flusher.watch(source, into)
    for index, gain, flush in steps:
        sources[index].packets += gain
        sources[index].lost += 1
        if flush:
            flusher.flush()
    flusher.flush()
    flusher.flush()
    assert value(registry, "received") == sum(source.packets for source in sources)
    assert value(registry, "lost") == len(steps)


def test_the_last_gain_of_a_source_that_goes_is_kept() -> None:
    registry, into = counters()
    flusher = Flusher()
    stats = Stats()
    flusher.watch(stats, into)
    stats.packets = 7
    flusher.unwatch(stats)
    stats.packets = 100
    flusher.unwatch(stats)
    flusher.flush()
    assert value(registry, "received") == 7


def test_a_source_may_be_a_function() -> None:
    registry, into = counters()
    flusher = Flusher()
    totals = Stats()
    flusher.watch(lambda: Stats(totals.packets, totals.lost), into)
    for totals.packets in (3, 5):
        flusher.flush()
    assert value(registry, "received") == 5
