"""The breaker's promises, on a clock of the test's own."""

from __future__ import annotations

from edge.asr.breaker import Breaker, Breakers
from edge.asr.settings import SupervisorSettings


def opened(open_s: float = 5.0) -> Breaker:
    breaker = Breaker(3, open_s)
    for _ in range(3):
        permit = breaker.acquire(0.0)
        assert permit is not None
        permit.failed(0.0)
    return breaker


def test_it_opens_only_after_so_many_failures_in_a_row() -> None:
    breaker = Breaker(3, 5.0)
    for outcome in ("failed", "failed", "succeeded", "failed", "failed"):
        permit = breaker.acquire(0.0)
        assert permit is not None
        if outcome == "failed":
            permit.failed(0.0)
        else:
            permit.succeeded()
    assert not breaker.is_open
    assert opened().is_open


def test_while_open_it_gives_no_permit_and_says_for_how_long() -> None:
    breaker = opened()
    assert breaker.acquire(4.9) is None
    assert breaker.wait_s(2.0) == 3.0


def test_then_one_probe_at_a_time_decides() -> None:
    breaker = opened()
    probe = breaker.acquire(5.0)
    assert probe is not None
    assert breaker.acquire(5.0) is None
    assert breaker.wait_s(5.0) > 0
    probe.failed(6.0)
    assert breaker.acquire(10.9) is None
    second = breaker.acquire(11.0)
    assert second is not None
    second.succeeded()
    assert not breaker.is_open
    assert breaker.acquire(11.0) is not None


def test_a_probe_that_says_nothing_makes_room_for_the_next() -> None:
    breaker = opened()
    probe = breaker.acquire(5.0)
    assert probe is not None
    probe.abandoned()
    assert breaker.acquire(5.0) is not None


def test_only_the_first_outcome_of_a_permit_counts() -> None:
    breaker = Breaker(1, 5.0)
    permit = breaker.acquire(0.0)
    assert permit is not None
    permit.succeeded()
    permit.failed(0.0)
    assert not breaker.is_open


def test_the_late_failure_of_an_older_attempt_does_not_end_a_probe() -> None:
    breaker = Breaker(2, 5.0)
    old = breaker.acquire(0.0)
    for _ in range(2):
        permit = breaker.acquire(0.0)
        assert permit is not None
        permit.failed(0.0)
    probe = breaker.acquire(5.0)
    assert old is not None and probe is not None
    old.failed(5.5)
    assert breaker.acquire(20.0) is None, "the probe is still under way"
    probe.succeeded()
    assert breaker.acquire(20.0) is not None


def test_each_recognizer_has_its_own() -> None:
    breakers = Breakers(SupervisorSettings())
    assert breakers.of("one") is breakers.of("one")
    assert breakers.of("one") is not breakers.of("other")
