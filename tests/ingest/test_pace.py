"""The pace of one connection: a burst is free, the average is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.ingest.pace import GO_ON_AT, LONGEST_LOOK_S, Pace, Waiting


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


class Track:
    """So much of what may waits to be played."""

    def __init__(self, crowding: float) -> None:
        self.crowding = crowding

    def must_wait(self, now_s: float, crowding: float = 1.0) -> bool:
        return self.crowding >= crowding


def test_a_connection_waits_until_all_its_crowded_tracks_have_played() -> None:
    full, other, free = Track(1.0), Track(1.0), Track(0.9)
    waiting = Waiting()
    assert waiting.begin([free], 0.0) == 0.0
    assert waiting.begin([full, other, free], 0.0) > 0.0
    full.crowding = GO_ON_AT / 2
    looks_s = [waiting.go_on(0.1) for _ in range(10)]
    assert sorted(looks_s) == looks_s
    assert 0.0 < looks_s[0] < looks_s[-1] == LONGEST_LOOK_S
    other.crowding = GO_ON_AT / 2
    assert waiting.go_on(0.2) == 0.0
    assert not waiting
