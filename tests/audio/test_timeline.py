"""The map from audio time to session time."""

from __future__ import annotations

import pytest

from edge.audio.timeline import Timeline


def test_without_marks_each_time_is_itself() -> None:
    assert Timeline().map_ms(1234.5) == 1234.5


def test_time_runs_on_from_the_last_mark_before_it() -> None:
    timeline = Timeline()
    timeline.mark(0, 48_000)
    timeline.mark(96_000, 480_000)
    assert [timeline.map_ms(at_ms) for at_ms in (0, 1999, 2000, 2500)] == [
        1000,
        2999,
        10_000,
        10_500,
    ]


def test_what_lies_before_the_first_mark_is_mapped_by_it() -> None:
    timeline = Timeline()
    timeline.mark(48_000, 96_000)
    assert timeline.map_ms(500) == 1500


def test_the_last_of_two_marks_at_one_place_counts() -> None:
    timeline = Timeline()
    timeline.mark(48_000, 96_000)
    timeline.mark(48_000, 0)
    assert timeline.map_ms(1000) == 0


def test_marks_without_end_take_bounded_room_and_the_newest_stay_right() -> None:
    timeline = Timeline()
    for second in range(10_000):
        timeline.mark(48_000 * second, 96_000 * second)
    assert timeline.map_ms(9_999_000) == 19_998_000
    assert timeline.map_ms(9_800_000) == 19_600_000
    assert timeline.map_ms(0) == pytest.approx(9744 * 1000)


@pytest.mark.parametrize("time", [10**400, -(10**400)])
def test_a_time_from_nowhere_is_held_at_64_bits(time: int) -> None:
    timeline = Timeline()
    timeline.mark(0, time)
    assert abs(timeline.map_ms(0)) == pytest.approx(2**63 / 48)
