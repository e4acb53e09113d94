"""Which recognizer a track tries next, and when: backoff, fail-over and refusals.

Comes in: a track's recognizers in order of preference, and what became of each attempt. Goes out:
the next one to try and how long to wait first. Only the supervisor calls it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from tenacity import AsyncRetrying, RetryCallState, wait_exponential

from edge.asr.breaker import Breakers
from edge.asr.interface import Recognizer, StreamRequest
from edge.asr.settings import SupervisorSettings
from edge.errors import RecognizerBusy, RecognizerError

JITTER = 0.2
LONGEST_RETRY_AFTER_S = 60.0
FORGIVE_AFTER_S = 30.0
"""A recognizer given up for the next one gets a new chance this long after its last failure."""


class Choice:
    """One recognizer of a track, and how it did for this track."""

    __slots__ = (
        "failed_at_s",
        "failures",
        "recognizer",
        "refusal",
        "retry_at_s",
        "service",
        "was_asked_to_wait",
    )

    def __init__(self, recognizer: Recognizer, service: str) -> None:
        self.recognizer = recognizer
        self.service = service
        """What its breaker is of."""
        self.failures = 0
        """In a row, since it last proved good."""
        self.failed_at_s = 0.0
        self.retry_at_s = 0.0
        self.was_asked_to_wait = False
        """Whether that time is the service's wish."""
        self.refusal: RecognizerError | None = None


class Choices:
    """A track's recognizers, best first. Times are ``time.monotonic()``."""

    def __init__(
        self,
        recognizers: Sequence[Recognizer],
        breakers: Breakers,
        settings: SupervisorSettings,
        request: StreamRequest,
    ) -> None:
        self._choices = [Choice(each, each.service_of(request)) for each in recognizers]
        self._breakers = breakers
        self._attempts = settings.attempts_per_recognizer
        self._longest_s = settings.retry_max_s
        self._wait = wait_exponential(multiplier=settings.retry_initial_s, max=settings.retry_max_s)

    def next(self, now_s: float) -> tuple[Choice, float] | None:
        """The recognizer to try and the seconds to wait first; None if every one has refused.

        The best that has attempts left and no open breaker; if there is none, the one that may be
        tried soonest.
        """
        usable = [choice for choice in self._choices if choice.refusal is None]
        if not usable:
            return None
        for choice in usable:
            if not self._is_exhausted(choice, now_s) and not self._barred_s(choice, now_s):
                return choice, max(choice.retry_at_s - now_s, 0.0)
        waits = [
            (max(choice.retry_at_s - now_s, self._barred_s(choice, now_s)), choice)
            for choice in usable
        ]
        wait_s, choice = min(waits, key=lambda entry: entry[0])
        return choice, wait_s

    def failed(self, choice: Choice, error: RecognizerError, now_s: float) -> None:
        """The attempt, or the stream it opened, ended with this error."""
        if not error.retryable:
            choice.refusal = error
            return
        choice.failures += 1
        choice.failed_at_s = now_s
        wait_s = self._backoff_s(choice.failures)
        choice.was_asked_to_wait = False
        if isinstance(error, RecognizerBusy) and error.retry_after_s is not None:
            choice.was_asked_to_wait = True
            wait_s = max(wait_s, min(error.retry_after_s, LONGEST_RETRY_AFTER_S))
            if wait_s > self._longest_s:
                choice.failures = max(choice.failures, self._attempts)
        choice.retry_at_s = now_s + wait_s

    def hurry(self) -> None:
        """The track ends soon: try at once, and the next after each failure.

        A pause that the service itself has asked for is kept.
        """
        self._attempts = 1
        for choice in self._choices:
            choice.failures = 0
            if not choice.was_asked_to_wait:
                choice.retry_at_s = 0.0

    def proved(self, choice: Choice) -> None:
        """Its stream is good: forget the failures before it."""
        choice.failures = 0

    def refusal(self) -> RecognizerError | None:
        """Why the best recognizer refused, when all did."""
        return next((choice.refusal for choice in self._choices), None)

    def _is_exhausted(self, choice: Choice, now_s: float) -> bool:
        return choice.failures >= self._attempts and (
            now_s < max(choice.failed_at_s + FORGIVE_AFTER_S, choice.retry_at_s)
        )

    def _barred_s(self, choice: Choice, now_s: float) -> float:
        wait_s = self._breakers.of(choice.service).wait_s(now_s)
        return wait_s + random.uniform(0, 0.5) if wait_s else 0.0

    def _backoff_s(self, failures: int) -> float:
        state = RetryCallState(AsyncRetrying(), None, (), {})
        state.attempt_number = failures
        return self._wait(state) * random.uniform(1 - JITTER, 1 + JITTER)
