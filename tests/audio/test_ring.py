"""What a ring keeps, and that each packet is counted once."""

from __future__ import annotations

from edge.audio.ring import ReplayRing
from edge.audio.stats import TrackStats
from edge.audio.steps import Step, StepKind

SILENCE = Step(StepKind.SILENCE, 960)


def packet(samples: int = 960) -> Step:
    return Step(StepKind.PACKET, samples, b"\x08\x00")


def filled(stats: TrackStats, *steps: Step, limit_ms: int = 1000) -> ReplayRing:
    ring = ReplayRing(limit_ms, stats)
    for step in steps:
        ring.append(step)
    return ring


def test_steps_are_found_by_their_number_and_by_their_place() -> None:
    steps = [packet(), SILENCE, packet(480), packet()]
    ring = filled(TrackStats(), *steps)
    assert [ring.step(number) for number in range(4)] == steps
    assert [
        ring.find(position) for position in (-1, 0, 959, 960, 2000, 2400, 3359, 3360, 9999)
    ] == [
        (0, 0),
        (0, 0),
        (0, 0),
        (1, 960),
        (2, 1920),
        (3, 2400),
        (3, 2400),
        (4, 3360),
        (4, 3360),
    ]


def test_numbers_and_places_stay_when_older_steps_go() -> None:
    ring = filled(TrackStats(), packet(), packet(480), packet())
    ring.forget(1440)
    assert (ring.first, ring.count, ring.start, ring.end) == (2, 3, 1440, 2400)
    assert ring.find(0) == (2, 1440)


def test_what_was_heard_is_counted_when_first_played() -> None:
    stats = TrackStats()
    steps = [packet(), SILENCE, packet(), packet()]
    ring = filled(stats, *steps)
    for number, sound in ((0, True), (1, True), (2, False), (0, True), (2, True)):
        ring.mark_played(number, steps[number], sound)
    assert (stats.decoded, stats.corrupt, stats.unplayed, ring.unplayed_packets) == (1, 1, 0, 1)


def test_packets_passed_over_by_the_first_who_plays_later_ones_count_as_unplayed() -> None:
    stats = TrackStats()
    steps = [packet(), SILENCE, packet(), packet()]
    ring = filled(stats, *steps)
    ring.mark_played(3, steps[3], True)
    ring.mark_played(0, steps[0], True)
    assert (stats.decoded, stats.unplayed, ring.unplayed_packets) == (1, 2, 0)


def test_unplayed_packets_that_leave_are_counted() -> None:
    stats = TrackStats()
    ring = filled(stats, packet(), SILENCE, packet(), packet())
    ring.mark_played(0, packet(), True)
    ring.forget(2880)
    assert (stats.decoded, stats.unplayed, ring.unplayed_packets) == (1, 1, 1)
    assert stats.overflow_dropped_ms == 0


def test_dropped_milliseconds_are_exact_for_packets_of_two_and_a_half() -> None:
    stats = TrackStats()
    filled(stats, *[packet(120)] * 12, limit_ms=10)
    assert (stats.overflow_dropped_ms, stats.unplayed) == (20, 8)
