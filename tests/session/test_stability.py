"""Stability figures: each definition, its verdicts, and what several workers add up to."""

from __future__ import annotations

import pytest

from edge.session.stability import (
    DURATIONS_S,
    RECONNECTIONS_MS,
    Measure,
    Report,
    Snapshot,
    Stability,
    report,
)
from edge.transport.interface import Close

GONE = Close(1000, by_peer=True)
LOST = Close(1006)


class Clock:
    """Time that tests move; the wall and the monotonic clock are one."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now_s


class Worker:
    """A recorder with a clock, and its figures."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.stability = Stability(self.clock, self.clock)

    def run(self, count: int, duration_s: float, close: Close | None, error: bool = False) -> None:
        """So many connections that opened together and lasted so long; None leaves them open."""
        connections = [object() for _ in range(count)]
        for connection in connections:
            self.stability.opened(connection)
            if error:
                self.stability.error(connection)
        self.clock.now_s += duration_s
        for connection in connections:
            if close is not None:
                self.stability.closed(connection, close)

    def figure(self, metric: str, window: str = "5m") -> Measure:
        figure = getattr(self.report().windows[window], metric)
        assert isinstance(figure, Measure)
        return figure

    def report(self) -> Report:
        return report([self.stability.snapshot()], self.clock())


@pytest.mark.parametrize(
    ("duration_s", "verdict"),
    [(10, "bad"), (29.9, "bad"), (30, "warn"), (299, "warn"), (300, "good"), (900, "good")],
)
def test_the_duration_is_the_median_over_closed_connections(
    duration_s: float, verdict: str
) -> None:
    worker = Worker()
    worker.run(20, duration_s, GONE)
    figure = worker.figure("connection_duration", "1h")
    assert figure.value == pytest.approx(duration_s, rel=0.03)
    assert (figure.unit, figure.samples, figure.verdict) == ("s", 20, verdict)


def test_open_connections_count_with_their_age() -> None:
    worker = Worker()
    worker.run(30, 400, None)
    worker.run(29, 1, GONE)
    figure = worker.figure("connection_duration")
    assert figure.value == pytest.approx(401, rel=0.03)
    assert (figure.samples, figure.verdict) == (59, "good")


@pytest.mark.parametrize(
    ("close", "expected"),
    [
        (Close(1000), True),
        (Close(1001), True),
        (Close(1005), True),
        (Close(1006), False),
        (Close(1011), False),
        (Close(1000, by_peer=False), True),
        (Close(4004, by_peer=False), True),
        (Close(1001, by_peer=False), False),
        (Close(1008, by_peer=False), False),
        (Close(1011, by_peer=False), False),
        (Close(4009, by_peer=False), False),
        (Close(4004), False),
    ],
)
def test_what_counts_as_a_disconnection(close: Close, expected: bool) -> None:
    worker = Worker()
    worker.run(40, 1, close)
    figure = worker.figure("disconnection_rate")
    assert (figure.value, figure.samples) == (0.0 if expected else 1.0, 40)
    assert figure.verdict == ("good" if expected else "bad")


@pytest.mark.parametrize(("lost", "verdict"), [(4, "good"), (5, "warn"), (20, "warn"), (21, "bad")])
def test_the_disconnection_rate_is_over_all_that_were_alive(lost: int, verdict: str) -> None:
    worker = Worker()
    worker.run(50, 1, None)
    worker.run(50 - lost, 1, GONE)
    worker.run(lost, 1, LOST)
    figure = worker.figure("disconnection_rate")
    assert (figure.value, figure.verdict) == (lost / 100, verdict)


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1011])
def test_a_close_that_tells_of_an_error_counts_as_one(code: int) -> None:
    worker = Worker()
    worker.run(98, 1, None)
    worker.run(1, 1, Close(code, by_peer=False))
    worker.run(1, 1, Close(code))
    figure = worker.figure("error_rate")
    assert (figure.value, figure.verdict) == (0.02, "warn")


def test_a_connection_with_an_error_counts_once_open_or_closed() -> None:
    worker = Worker()
    worker.run(94, 1, GONE)
    worker.run(3, 1, None, error=True)
    worker.run(2, 1, GONE, error=True)
    worker.run(1, 1, Close(1011, by_peer=False), error=True)
    assert worker.figure("error_rate").value == 0.06
    assert worker.figure("error_rate").verdict == "bad"


@pytest.mark.parametrize(
    ("slow_ms", "verdict"),
    [(300, "good"), (499, "good"), (501, "warn"), (1999, "warn"), (2010, "bad")],
)
def test_the_reconnection_time_is_the_95th_percentile_of_welcomes_and_absences(
    slow_ms: float, verdict: str
) -> None:
    worker = Worker()
    connection = object()
    worker.stability.opened(connection)
    worker.clock.now_s += 0.1
    worker.stability.welcomed(connection)
    for _ in range(93):
        worker.stability.lost_ms(connection, 50)
    for _ in range(6):
        worker.stability.lost_ms(connection, slow_ms)
    figure = worker.figure("reconnection_time")
    assert figure.value == pytest.approx(slow_ms, rel=0.04)
    assert (figure.unit, figure.samples, figure.verdict) == ("ms", 100, verdict)


def test_fewer_than_twenty_samples_are_never_good() -> None:
    worker = Worker()
    assert worker.figure("connection_duration") == Measure(None, "s", 0, "insufficient_data")
    worker.run(19, 400, GONE)
    for metric in ("connection_duration", "disconnection_rate", "error_rate", "reconnection_time"):
        assert worker.figure(metric, "1h").verdict == "insufficient_data"
    assert worker.figure("connection_duration", "1h").value is not None
    worker.run(1, 400, GONE)
    assert worker.figure("disconnection_rate", "1h").verdict == "good"


def test_each_window_forgets_what_is_older() -> None:
    worker = Worker()
    worker.run(20, 1, LOST)
    for wait_s, remembered in ((290, ["5m", "1h", "24h"]), (30, ["1h", "24h"]), (3500, ["24h"])):
        worker.clock.now_s += wait_s
        windows = worker.report().windows
        assert [name for name, each in windows.items() if each.connections] == remembered
    worker.clock.now_s += 90_000
    assert not any(each.connections for each in worker.report().windows.values())


def test_a_drain_counts_only_for_those_who_do_not_come_back() -> None:
    clock = Clock()
    old, new = Worker(clock), Worker(clock)
    connections = [object() for _ in range(40)]
    for number, connection in enumerate(connections):
        old.stability.opened(connection)
        old.stability.welcomed(connection, f"session {number}")
    old.stability.is_draining = True
    for connection in connections:
        old.stability.closed(connection, Close(1012, by_peer=False))
    for number in range(30):
        new.stability.opened(connection := object())
        new.stability.welcomed(connection, f"session {number}")
    new.stability.opened(stranger := object())
    new.stability.welcomed(stranger, "another")

    def rate() -> float | None:
        snapshots = [old.stability.snapshot(is_stopped=True), new.stability.snapshot()]
        return report(snapshots, clock()).windows["5m"].disconnection_rate.value

    assert rate() == pytest.approx(40 / 71, abs=0.01)
    assert new.stability.resumes(old.stability.drained_keys) == 30
    assert new.stability.resumes(old.stability.drained_keys) == 0
    assert rate() == pytest.approx(10 / 71, abs=0.01)


def test_a_dead_worker_has_lost_its_connections_and_a_stopped_one_has_not() -> None:
    clock = Clock()
    dead, stopped = Worker(clock), Worker(clock)
    for worker in (dead, stopped):
        worker.run(20, 100, None)
    last = [dead.stability.snapshot(), stopped.stability.snapshot(is_stopped=True)]
    assert report(last[:1], clock()).windows["5m"].disconnection_rate.value == 0.0
    clock.now_s += 60
    figures = report(last, clock())
    assert figures.workers == 0
    assert figures.windows["5m"].disconnection_rate == Measure(1.0, "ratio", 20, "bad")
    assert figures.windows["5m"].connection_duration.value == pytest.approx(200, rel=0.03)
    clock.now_s += 300
    windows = report(last, clock()).windows
    assert (windows["5m"].connections, windows["1h"].connections) == (0, 20)


def test_what_is_said_of_unknown_or_closed_connections_changes_nothing() -> None:
    worker = Worker()
    worker.stability.welcomed(object())
    worker.stability.error(object())
    worker.stability.lost_ms(object(), 5)
    worker.stability.closed(object(), LOST)
    worker.stability.opened(connection := object())
    for absurd in (-1.0, float("nan"), float("inf")):
        worker.stability.lost_ms(connection, absurd)
    assert worker.report().windows["24h"].connections == 1
    assert worker.figure("reconnection_time").samples == 0


def test_a_snapshot_is_bounded_however_much_happens() -> None:
    worker = Worker()
    for number in range(20_000):
        worker.run(1, 0.5 + number % 977, Close(1006))
    snapshot: Snapshot = worker.stability.snapshot()
    assert all(len(tallies) <= 31 for tallies in snapshot.tallies.values())
    bins = max(len(each.durations) for tallies in snapshot.tallies.values() for each in tallies)
    assert bins < 400


@pytest.mark.parametrize("value", [0.05, 1.0, 29.9, 480.0, 86_400.0, 1e6])
def test_bins_are_about_five_percent_wide(value: float) -> None:
    assert DURATIONS_S.value(DURATIONS_S.bin(value)) == pytest.approx(value, rel=0.03)
    assert RECONNECTIONS_MS.value(RECONNECTIONS_MS.bin(value)) == pytest.approx(value, rel=0.03)
