"""The pace of one connection: a burst is free, the average is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.ingest.pace import Pace


def test_one_seconds_worth_may_come_in_a_burst() -> None:
    pace = Pace(100, now_s=0.0)
    assert [pace.spend(0.0) for _ in range(100)] == [0.0] * 100
    assert pace.spend(0.0) > 0.0


def test_what_costs_more_than_one_event_is_waited_for_as_so_many() -> None:
    pace = Pace(100, now_s=0.0)
    assert pace.spend(0.0, 100.0) == 0.0
    assert pace.spend(0.0, 50.0) == 0.5
    assert pace.spend(0.5, 1.0) > 0.0


@given(st.lists(st.floats(0, 0.1), max_size=400), st.integers(50, 500))
def test_a_sender_that_waits_as_told_never_exceeds_its_rate(gaps: list[float], rate: int) -> None:
    pace, now_s, taken = Pace(rate, 0.0), 0.0, 0
    for gap in gaps:
        now_s += gap + pace.spend(now_s + gap)
        taken += 1
    assert taken <= rate + now_s * rate + 1
