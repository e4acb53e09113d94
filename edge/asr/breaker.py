"""What a worker's tracks share of a recognizer: whether it may be tried, and by how many at once.

Comes in: the outcome of attempts by all tracks of a worker. Goes out: whether one more may be made
now. It knows no clock of its own: callers pass ``time.monotonic()``.
"""

from __future__ import annotations

import asyncio

from edge.asr.settings import SupervisorSettings

PROBE_POLL_S = 0.5
"""How soon to ask again while another track's probe is under way."""


class Breaker:
    """A circuit breaker: a recognizer that fails for everybody is left alone for a while.

    Opens after a number of failures in a row; then lets one probe through at a time.
    """

    def __init__(self, failures: int, open_s: float) -> None:
        self._limit = failures
        self._open_s = open_s
        self._failures = 0
        self._open_until_s = 0.0
        self._probe: Permit | None = None

    @property
    def is_open(self) -> bool:
        """Whether attempts are restricted."""
        return self._failures >= self._limit

    def wait_s(self, now_s: float) -> float:
        """Seconds until asking for a permit makes sense; 0 when one is to be had now."""
        if not self.is_open:
            return 0.0
        least_s = PROBE_POLL_S if self._probe is not None else 0.0
        return max(self._open_until_s - now_s, least_s)

    def acquire(self, now_s: float) -> Permit | None:
        """A permit for one attempt, or None."""
        if self.wait_s(now_s) > 0:
            return None
        permit = Permit(self)
        if self.is_open:
            self._probe = permit
        return permit

    def _settle(self, permit: Permit, failed_s: float | None, succeeded: bool) -> None:
        if permit is self._probe:
            self._probe = None
        if succeeded:
            self._failures = 0
        elif failed_s is not None:
            self._failures += 1
            if self.is_open:
                self._open_until_s = failed_s + self._open_s


class Permit:
    """Leave for one attempt; the first of its outcomes counts, later ones are ignored."""

    __slots__ = ("_breaker",)

    def __init__(self, breaker: Breaker) -> None:
        self._breaker: Breaker | None = breaker

    def succeeded(self) -> None:
        """The recognizer works: close the breaker."""
        self._settle(None, succeeded=True)

    def failed(self, now_s: float) -> None:
        """The recognizer failed before it proved itself; opens the breaker at its limit."""
        self._settle(now_s)

    def abandoned(self) -> None:
        """The attempt ended without saying anything about the recognizer."""
        self._settle(None)

    def _settle(self, failed_s: float | None, succeeded: bool = False) -> None:
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker._settle(self, failed_s, succeeded)


class Breakers:
    """The breakers of one worker, and the turnstiles before them, one per recognizer name."""

    def __init__(self, settings: SupervisorSettings) -> None:
        self._settings = settings
        self._by_name: dict[str, Breaker] = {}
        self._turnstiles: dict[str, asyncio.Semaphore] = {}

    def of(self, name: str) -> Breaker:
        """The breaker of this recognizer."""
        breaker = self._by_name.get(name)
        if breaker is None:
            breaker = Breaker(self._settings.breaker_failures, self._settings.breaker_open_s)
            self._by_name[name] = breaker
        return breaker

    def open_by_name(self) -> dict[str, bool]:
        """Whether attempts at each recognizer that was ever tried are restricted."""
        return {name: breaker.is_open for name, breaker in self._by_name.items()}

    def turnstile(self, name: str) -> asyncio.Semaphore:
        """To be held while a connection to this recognizer is opening, and asked for before it."""
        turnstile = self._turnstiles.get(name)
        if turnstile is None:
            turnstile = asyncio.Semaphore(self._settings.connects_at_once)
            self._turnstiles[name] = turnstile
        return turnstile
