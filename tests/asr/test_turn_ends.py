"""The ends of turns that were asked for: in order, none before it has its text."""

from __future__ import annotations

from edge.asr.turn_ends import MOST, TurnEnds


def test_each_is_found_after_the_one_before_and_is_there_once() -> None:
    ends = TurnEnds()
    assert ends.after(0) is None
    for end_ms in (500.0, 500.0, 900.0, 700.0):
        ends.add(end_ms)
    assert (ends.after(0), ends.after(500), ends.after(900)) == (500, 900, None)


def test_a_final_answers_the_first_one_given_and_all_that_its_text_covers() -> None:
    ends = TurnEnds()
    for end_ms in (500.0, 900.0, 1300.0):
        ends.add(end_ms)
    ends.told(mark_ms=480, given_ms=900)
    assert ends.after(0) == 900
    ends.told(mark_ms=490, given_ms=0)
    assert ends.after(0) == 900, "a final that silence brought, on a connection that was not asked"
    ends.told(mark_ms=1300, given_ms=0)
    assert ends.after(0) is None


def test_they_are_bounded() -> None:
    ends = TurnEnds()
    for number in range(MOST + 10):
        ends.add(float(number))
    assert ends.after(-1) == 10
