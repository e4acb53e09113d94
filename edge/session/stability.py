"""How stable connections are: durations, disconnections, errors and reconnections, with verdicts.

Comes in: what happens to each client connection of a worker. Goes out: a ``Snapshot`` of bounded
size that other workers can read, and a ``Report`` over any number of them. Times and ratios are
counted in slots of a thirtieth of each window and in bins 5 % wide, whatever the load.
"""

from __future__ import annotations

import hashlib
import math
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import msgspec

from edge.transport.interface import Close, Receiver, Socket

SLOTS = 30
WINDOWS_S = {"5m": 300, "1h": 3600, "24h": 86400}
STALE_AFTER_S = 30.0
"""A worker that has not written for this long and has not said goodbye is dead."""
MIN_SAMPLES = 20
"""With fewer there is no verdict."""
ERROR_CODES = frozenset((1002, 1003, 1007, 1011))
DRAIN_CODES = frozenset((1001, 1012))
PEER_LEAVES = frozenset((1000, 1001, 1005))
"""What a client closes with that means to go; 1005 is a close without a code, a page's default."""
SESSION_ENDS = frozenset((1000, 4004))
"""What this side closes with when all is done: at the client's wish, or the session is gone."""
MOST_KEYS = 10_000
KEYS_KEPT_S = 300.0
MOST_LOST_MS = 86_400_000.0

Verdict = Literal["good", "warn", "bad", "insufficient_data"]
Bins = dict[int, int]


class Scale:
    """Bins of equal ratio, with edges exactly on two thresholds."""

    def __init__(self, first: float, second: float, between: int, below: int, above: int) -> None:
        ratio = second / first
        steps = range(-below, above + 1)
        self._edges: list[float] = [first * math.pow(ratio, step / between) for step in steps]

    def bin(self, value: float) -> int:
        """The number of a value's bin."""
        return bisect_right(self._edges, value)

    def value(self, number: int) -> float:
        """The middle of a bin."""
        edges = self._edges
        if 0 < number < len(edges):
            return math.sqrt(edges[number - 1] * edges[number])
        return edges[0 if number <= 0 else -1]

    def quantile(self, bins: Mapping[int, int], share: float) -> float | None:
        """The nearest-rank quantile of what was counted."""
        rank = math.ceil(sum(bins.values()) * share)
        for number in sorted(bins):
            rank -= bins[number]
            if rank <= 0:
                return self.value(number)
        return None


DURATIONS_S = Scale(30.0, 300.0, 48, 144, 240)
RECONNECTIONS_MS = Scale(500.0, 2000.0, 24, 168, 192)


class Tally(msgspec.Struct, array_like=True):
    """What happened within one slot of time."""

    slot: int
    """Unix time divided by the slot's length."""
    closed: int = 0
    errored: int = 0
    """Closed connections that had an error."""
    unexpected: int = 0
    drained: int = 0
    """Closed because this side was stopping; their clients were told to come back."""
    resumed: int = 0
    """Came back after a drain, here or elsewhere."""
    durations: Bins = {}
    reconnections: Bins = {}


class Snapshot(msgspec.Struct, array_like=True):
    """What a worker knows of its connections, as others read it."""

    at_unix_s: float
    is_stopped: bool
    ages: Bins
    """How long the open connections have been open."""
    open_errored: int
    tallies: dict[str, list[Tally]]
    """By window."""


class Measure(msgspec.Struct, frozen=True):
    """One figure and what to think of it."""

    value: float | None
    """None without samples."""
    unit: Literal["s", "ms", "ratio"]
    samples: int
    verdict: Verdict


class WindowReport(msgspec.Struct, frozen=True):
    """All figures of one window."""

    connections: int
    """Connections that were alive in the window."""
    connection_duration: Measure
    """Median of closed durations and ages of open connections."""
    disconnection_rate: Measure
    """Unexpected ends per connection."""
    error_rate: Measure
    """Connections with an error, or an end with 1002, 1003, 1007 or 1011, per connection."""
    reconnection_time: Measure
    """95th percentile of the time from an open socket to its welcome, and of the time that clients
    say they were away."""


class Report(msgspec.Struct, frozen=True):
    """All windows, over all workers that were heard of."""

    workers: int
    """Workers alive."""
    is_complete: bool
    """False when the other workers' figures could not be read: these are of one worker."""
    windows: dict[str, WindowReport]


class _Open:
    __slots__ = ("errored", "key", "since_s", "welcomed")

    def __init__(self, since_s: float) -> None:
        self.since_s = since_s
        self.welcomed = False
        self.errored = False
        self.key = 0


class Stability:
    """One worker's recorder; all methods are for the event loop's thread and cost next to nothing.

    A connection is known by its receiver. What is said of one that is over, or unknown, is ignored.
    """

    def __init__(
        self,
        wall_s: Callable[[], float] = time.time,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall_s = wall_s
        self._clock_s = clock_s
        self._open: dict[object, _Open] = {}
        self._tallies: dict[str, list[Tally]] = {window: [] for window in WINDOWS_S}
        self._welcomed_keys: dict[int, float] = {}
        self.drained_keys: list[int] = []
        """Who was told to come back; ``resumes`` of the workers they come back to."""
        self.is_draining = False

    def watched(self, receiver: Receiver) -> Receiver:
        """The receiver, with its connection's start and end recorded here."""
        return Watched(receiver, self)

    def opened(self, connection: object) -> None:
        """A socket is open."""
        self._open[connection] = _Open(self._clock_s())

    def welcomed(self, connection: object, key: str = "") -> None:
        """The client has what it needs to begin; ``key`` is the same when it comes back."""
        found = self._open.get(connection)
        if found is None or found.welcomed:
            return
        found.welcomed = True
        now_s = self._clock_s()
        self._reconnected((now_s - found.since_s) * 1000)
        if key:
            found.key = _digest(key)
            self._welcomed_keys.pop(found.key, None)
            self._welcomed_keys[found.key] = now_s
            if len(self._welcomed_keys) > MOST_KEYS:
                del self._welcomed_keys[next(iter(self._welcomed_keys))]

    def lost_ms(self, connection: object, lost_ms: float) -> None:
        """The client says how long it was away before this connection."""
        if connection in self._open and 0.0 <= lost_ms < math.inf:
            self._reconnected(min(lost_ms, MOST_LOST_MS))

    def error(self, connection: object) -> None:
        """The client was told of an error."""
        if found := self._open.get(connection):
            found.errored = True

    def closed(self, connection: object, close: Close) -> None:
        """The connection is over."""
        found = self._open.pop(connection, None)
        if found is None:
            return
        drained = self.is_draining and not close.by_peer and close.code in DRAIN_CODES
        if drained and found.key and len(self.drained_keys) < MOST_KEYS:
            self.drained_keys.append(found.key)
        duration = DURATIONS_S.bin(self._clock_s() - found.since_s)
        for tally in self._now():
            tally.closed += 1
            tally.errored += found.errored or close.code in ERROR_CODES
            tally.drained += drained
            tally.unexpected += not drained and is_unexpected(close)
            tally.durations[duration] = tally.durations.get(duration, 0) + 1

    def resumes(self, keys: Iterable[int]) -> int:
        """Count those of ``keys``, drained elsewhere, that have come back here; each once."""
        oldest_s = self._clock_s() - KEYS_KEPT_S
        self._welcomed_keys = {
            key: at_s for key, at_s in self._welcomed_keys.items() if at_s >= oldest_s
        }
        back = [key for key in keys if self._welcomed_keys.pop(key, None) is not None]
        if back:
            for tally in self._now():
                tally.resumed += len(back)
        return len(back)

    def snapshot(self, *, is_stopped: bool = False) -> Snapshot:
        """What there is to tell others now."""
        now_s = self._clock_s()
        ages: Bins = {}
        for connection in self._open.values():
            age = DURATIONS_S.bin(now_s - connection.since_s)
            ages[age] = ages.get(age, 0) + 1
        errored = sum(connection.errored for connection in self._open.values())
        wall_s = self._wall_s()
        tallies = {}
        for window, length_s in WINDOWS_S.items():
            tallies[window] = [
                tally for tally in self._tallies[window] if _counts(tally, length_s, wall_s)
            ]
        self._tallies = tallies
        return Snapshot(wall_s, is_stopped, ages, errored, tallies)

    def _reconnected(self, time_ms: float) -> None:
        number = RECONNECTIONS_MS.bin(time_ms)
        for tally in self._now():
            tally.reconnections[number] = tally.reconnections.get(number, 0) + 1

    def _now(self) -> list[Tally]:
        """The tallies of this moment, one for each window."""
        wall_s = self._wall_s()
        found = []
        for window, length_s in WINDOWS_S.items():
            slot = int(wall_s * SLOTS // length_s)
            tallies = self._tallies[window]
            if not tallies or tallies[-1].slot != slot:
                tallies.append(Tally(slot))
                del tallies[: -SLOTS - 1]
            found.append(tallies[-1])
        return found


class Watched:
    """A receiver whose connection is recorded; messages go straight to it."""

    __slots__ = ("_receiver", "_stability", "message")

    def __init__(self, receiver: Receiver, stability: Stability) -> None:
        self._receiver = receiver
        self._stability = stability
        self.message = receiver.message

    def opened(self, socket: Socket) -> None:
        """The upgrade is done."""
        self._stability.opened(self._receiver)
        self._receiver.opened(socket)

    def closed(self, close: Close) -> None:
        """The connection is over."""
        try:
            self._receiver.closed(close)
        finally:
            self._stability.closed(self._receiver, close)


def is_unexpected(close: Close) -> bool:
    """Whether nobody meant the connection to end like this; a drain is judged elsewhere."""
    if close.by_peer:
        return close.code not in PEER_LEAVES
    return close.code not in SESSION_ENDS


def report(snapshots: Iterable[Snapshot], now_s: float, *, is_complete: bool = True) -> Report:
    """The figures over all snapshots at ``now_s`` (Unix time).

    The connections of a worker that died count as lost when it was last heard of.
    """
    known = list(snapshots)
    windows = {
        window: _window(window, length_s, known, now_s) for window, length_s in WINDOWS_S.items()
    }
    alive = sum(not each.is_stopped and not _is_stale(each, now_s) for each in known)
    return Report(alive, is_complete, windows)


def judge(value: float | None, samples: int, *, good: bool, bad: bool) -> Verdict:
    """The verdict on a figure of so many samples."""
    if value is None or samples < MIN_SAMPLES:
        return "insufficient_data"
    if good:
        return "good"
    return "bad" if bad else "warn"


def _is_stale(snapshot: Snapshot, now_s: float) -> bool:
    return now_s - snapshot.at_unix_s >= STALE_AFTER_S


def _window(window: str, length_s: int, known: list[Snapshot], now_s: float) -> WindowReport:
    total = Tally(0, durations={}, reconnections={})
    for snapshot in known:
        for tally in snapshot.tallies.get(window, ()):
            if _counts(tally, length_s, now_s):
                _add(total, tally)
        if snapshot.is_stopped or snapshot.at_unix_s <= now_s - length_s:
            continue
        carried = sum(snapshot.ages.values())
        _merge(total.durations, snapshot.ages)
        total.errored += snapshot.open_errored
        total.closed += carried
        total.unexpected += carried if _is_stale(snapshot, now_s) else 0
    connections = total.closed
    median_s = DURATIONS_S.quantile(total.durations, 0.5)
    return WindowReport(
        connections=connections,
        connection_duration=_duration(median_s, sum(total.durations.values())),
        disconnection_rate=_ratio(
            total.unexpected + max(0, total.drained - total.resumed), connections, 0.05, 0.2
        ),
        error_rate=_ratio(total.errored, connections, 0.01, 0.05),
        reconnection_time=_reconnection(total.reconnections),
    )


def _duration(median_s: float | None, samples: int) -> Measure:
    value = median_s or 0.0
    verdict = judge(median_s, samples, good=value >= 300.0, bad=value < 30.0)
    return Measure(_rounded(median_s), "s", samples, verdict)


def _ratio(count: int, connections: int, good: float, bad: float) -> Measure:
    if not connections:
        return Measure(None, "ratio", 0, "insufficient_data")
    value = count / connections
    verdict = judge(value, connections, good=value < good, bad=value > bad)
    return Measure(_rounded(value), "ratio", connections, verdict)


def _reconnection(bins: Bins) -> Measure:
    p95_ms = RECONNECTIONS_MS.quantile(bins, 0.95)
    samples, value = sum(bins.values()), p95_ms or 0.0
    verdict = judge(p95_ms, samples, good=value < 500.0, bad=value > 2000.0)
    return Measure(_rounded(p95_ms), "ms", samples, verdict)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")


def _counts(tally: Tally, length_s: int, now_s: float) -> bool:
    """Whether any of a slot lies within the window that ends now."""
    return (tally.slot + 1) * length_s / SLOTS > now_s - length_s


def _add(total: Tally, tally: Tally) -> None:
    for name in ("closed", "errored", "unexpected", "drained", "resumed"):
        setattr(total, name, getattr(total, name) + getattr(tally, name))
    _merge(total.durations, tally.durations)
    _merge(total.reconnections, tally.reconnections)


def _merge(total: Bins, bins: Bins) -> None:
    for number, count in bins.items():
        total[number] = total.get(number, 0) + count


def _digest(key: str) -> int:
    """A key's fingerprint: shared with other workers, it tells no name."""
    data = key.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
