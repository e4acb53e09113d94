"""What the router counts (section R11): integers, carried to prometheus_client once a second.

A request costs an addition or two; the second begins with the first one after the last carrying,
so that an idle router does nothing.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from typing import Final

from prometheus_client import Counter, Histogram

CARRY_S: Final = 1.0
BUCKETS: Final = (1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 1e-2)

_REQUESTS: Final = Counter(
    "router_requests_total", "Requests by what became of them.", ("env", "service", "outcome")
)
_OVERHEAD: Final = Histogram(
    "router_overhead_seconds", "Time from a request's head to the decision.", buckets=BUCKETS
)


class Count:
    """Requests of one environment, service and outcome."""

    __slots__ = ("_into", "value")

    def __init__(self, environment: str, service: str, outcome: str) -> None:
        self.value = 0
        self._into = _REQUESTS.labels(environment, service, outcome)

    def carry(self) -> None:
        """Hand on what was counted since the last time."""
        if self.value:
            self._into.inc(self.value)
            self.value = 0


class Tally:
    """What one router has counted and not yet handed on. Belongs to one event loop."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str], Count] = {}
        self._spent_s = 0.0
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._carrying: asyncio.TimerHandle | None = None

    def count(self, environment: str, service: str, outcome: str) -> Count:
        """The count of one environment, service and outcome; add to its ``value``."""
        key = environment, service, outcome
        found = self._counts.get(key)
        if found is None:
            found = self._counts[key] = Count(*key)
        return found

    def decided(self, spent_s: float) -> None:
        """One decision more has been made."""
        self._spent_s += spent_s
        self._buckets[bisect_left(BUCKETS, spent_s)] += 1
        if self._carrying is None:
            self._carrying = asyncio.get_running_loop().call_later(CARRY_S, self.carry)

    def carry(self) -> None:
        """Hand everything on."""
        if self._carrying is not None:
            self._carrying.cancel()
            self._carrying = None
        for count in self._counts.values():
            count.carry()
        # A histogram has no public way to add many observations at once.
        _OVERHEAD._sum.inc(self._spent_s)
        for number, bucket in enumerate(_OVERHEAD._buckets):
            if self._buckets[number]:
                bucket.inc(self._buckets[number])
                self._buckets[number] = 0
        self._spent_s = 0.0
