"""A sender is ahead while its lead grows or it is kept waiting; a lead that only stays is none."""

from __future__ import annotations

import pytest

from edge.audio.lead import AHEAD_MS, CREDIT_S, LOOK_S, Lead

STEP_S = 0.1


def ahead(
    lead: Lead, from_s: float, to_s: float, sent_ms: float, rate: float, *, excused: bool = False
) -> list[bool]:
    """Answers each 100 ms to a sender that had sent so much and goes on at this rate."""
    steps = round((to_s - from_s) / STEP_S)
    times_s = [from_s + STEP_S * step for step in range(steps + 1)]
    return [
        lead.is_ahead(now_s, sent_ms + 1000 * rate * (now_s - from_s), excused=excused)
        for now_s in times_s
    ]


def test_one_in_real_time_is_never_ahead() -> None:
    assert not any(ahead(Lead(0.0), 0.0, 60.0, AHEAD_MS - 1, 1.0))


@pytest.mark.parametrize("rate", [1.2, 2.0, 100.0])
def test_one_that_is_faster_is_ahead_as_long_as_it_is(rate: float) -> None:
    answers = ahead(Lead(0.0), 0.0, 60.0, 0.0, rate)
    assert answers[-1] and answers == sorted(answers)


def test_a_burst_of_one_in_real_time_counts_for_a_while_only() -> None:
    answers = ahead(Lead(0.0), 0.0, 60.0, 4_000.0, 1.0)
    assert answers[0]
    assert not any(answers[round(LOOK_S / STEP_S) + 1 :])


def test_one_that_is_kept_waiting_stays_ahead() -> None:
    lead = Lead(0.0)
    assert all(ahead(lead, 0.0, 30.0, 4_000.0, 1.0, excused=True))
    assert lead.is_ahead(30.0 + LOOK_S / 2, 34_000.0 + 1000 * LOOK_S / 2, excused=False)


def test_who_was_away_may_catch_up_before_it_counts() -> None:
    lead = Lead(0.0)
    assert not lead.is_ahead(600.0, 0.0, excused=False)
    assert not lead.is_ahead(600.0, 1000 * CREDIT_S, excused=False)
    assert lead.is_ahead(600.0, 1000 * CREDIT_S + AHEAD_MS + 1, excused=False)
