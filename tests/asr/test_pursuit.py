"""A feed that catches up gives the distance up only when it comes no nearer."""

from __future__ import annotations

from edge.asr.pursuit import WINDOW_S, Pursuit


def looks(pursuit: Pursuit, behind_ms: float, gain_ms: float) -> list[bool]:
    """Looks once a window at a track in real time, the feed gaining so much in each."""
    answers = []
    for number in range(5):
        now_s = number * WINDOW_S
        end_ms = 60_000 + 1000 * now_s
        delivered_ms = end_ms - behind_ms + number * gain_ms
        answers.append(pursuit.is_lost(now_s, delivered_ms, end_ms))
    return answers


def test_a_feed_that_comes_nearer_goes_on() -> None:
    assert not any(looks(Pursuit(0), 20_000, 1000))


def test_a_feed_that_comes_no_nearer_is_lost_after_a_while() -> None:
    assert looks(Pursuit(0), 5_000, 0)[:2] == [False, True]
    assert looks(Pursuit(0), 5_000, -1000)[:2] == [False, True]


def test_a_feed_that_is_hardly_behind_goes_on() -> None:
    assert not any(looks(Pursuit(0), 150, 0))


def test_what_an_earlier_connection_owed_is_played_first() -> None:
    assert looks(Pursuit(68_000), 5_000, 0) == [False, False, False, True, True]


def test_waiting_for_the_recognizer_is_no_distance_lost() -> None:
    pursuit = Pursuit(0)
    assert not pursuit.is_lost(0.0, 0.0, 5_000.0)
    pursuit.rest()
    assert not pursuit.is_lost(60.0, 0.0, 30_000.0)
