"""A feed that catches up comes nearer with each turn, or passes over what it has no time for."""

from __future__ import annotations

import pytest

from edge.asr.pursuit import LATE_S, LONGEST_SLICE_MS, SLICE_MS, Pursuit


@pytest.mark.parametrize("waited_s", [0.0, 0.01, 0.1, LATE_S])
def test_a_feed_whose_turn_comes_in_time_is_nearer_after_each(waited_s: float) -> None:
    pursuit, behind_ms, turns = Pursuit(0), 3000.0, 0
    while behind_ms > 0:
        behind_ms += 1000 * waited_s
        assert not pursuit.is_lost(waited_s, 60_000)
        behind_ms -= pursuit.slice_ms(waited_s)
        turns += 1
    assert turns == 3000 / SLICE_MS


def test_no_turn_plays_for_long() -> None:
    assert Pursuit(0).slice_ms(60.0) == LONGEST_SLICE_MS


def test_a_feed_that_waited_too_long_for_its_turn_is_lost() -> None:
    assert not Pursuit(0).is_lost(LATE_S, 0)
    assert Pursuit(0).is_lost(LATE_S + 0.01, 0)


def test_what_was_kept_for_want_of_a_recognizer_is_played_first() -> None:
    pursuit = Pursuit(5_000)
    assert not pursuit.is_lost(1.0, 4_999)
    assert pursuit.is_lost(1.0, 5_000)
    pursuit.rest(8_000)
    assert not pursuit.is_lost(1.0, 7_999)
    assert pursuit.is_lost(1.0, 8_000)
