"""Which steps come of gaps, silence, clocks and bad timestamps: as vectors and in virtual time."""

from __future__ import annotations

from edge.audio.settings import TrackSettings
from tests.audio.support.packets import silk
from tests.audio.support.sequence import Run, p, raw, run, wait
from tests.audio.support.vectors import Vector, check_times, each, hold, vector

GARBAGE = b"\xff\xff"

GAPS = [
    vector(
        "a pause (numbers go on, times jump) is silence",
        p(1),
        p(2, at=540),
        steps="p1 s500 p2",
        lost=0,
        silence_ms=500,
        jumps=0,
    ),
    vector(
        "a pause beyond max_gap_fill_ms is filled to there, then the clock jumps",
        p(1),
        p(2, at=30_040),
        steps="p1 s2000 p2",
        silence_ms=2000,
        jumps=1,
    ),
    vector(
        "how much is filled is a setting",
        p(1),
        p(2, at=540),
        steps="p1 s100 p2",
        settings=TrackSettings(max_gap_fill_ms=100),
        jumps=1,
    ),
    vector(
        "a sender that has stopped is silence in real time from 150 ms on, all of it",
        p(1),
        wait(160),
        steps="p1 s140",
        silence_ms=140,
    ),
    vector("before 150 ms nothing is made up", p(1), wait(139), steps="p1", silence_ms=0),
    vector("and never more than max_gap_fill_ms", p(1), wait(9000), steps="p1 s2000"),
    vector("packets of 120 ms are waited for 100 ms longer", p(1, ms=120), wait(240), steps="p1"),
    vector(
        "a pause that ends as it is filled is exactly as long as it was",
        p(1),
        wait(420),
        p(2, at=440),
        steps="p1 s400 p2",
        jumps=0,
    ),
    vector(
        "what the pause was longer is still silence",
        p(1),
        wait(400),
        p(2, at=540),
        steps="p1 s500 p2",
        silence_ms=500,
        jumps=0,
    ),
    vector(
        "after a stall of the network nothing is dropped, the clock is put right",
        p(1),
        wait(400),
        p(2, 3, 4),
        steps="p1 s380 p2 p3 p4",
        jumps=1,
    ),
    vector(
        "a loss that silence covers already is not concealed again",
        p(1),
        wait(400),
        p(6),
        steps="p1 s380 p6",
        lost=4,
        silenced=4,
        concealed=0,
        jumps=1,
    ),
    vector(
        "each pause has its own limit",
        p(1),
        wait(3000),
        p(2, at=3020),
        wait(3000),
        p(3, at=6020),
        steps="p1 s2000 p2 s2000 p3",
        jumps=2,
    ),
    vector(
        "DTX packets of one byte are packets",
        p(1),
        raw(2, 40 * 48, b"\x08"),
        p(3),
        steps="p1 p8 p3",
        lost=0,
    ),
    vector(
        "without timestamps silence is what passed in real time",
        p(1, timed=False),
        wait(400),
        p(2, timed=False),
        steps="p1 s380 p2",
        jumps=0,
    ),
    vector(
        "a first timestamp after packets without sets the clock and fills nothing",
        p(1, 2, timed=False),
        p(3, 4),
        steps="p1 p2 p3 p4",
        silence_ms=0,
        jumps=0,
    ),
    vector(
        "packets of 10, 20, 40, 60 and 120 ms, mono and stereo, follow each other",
        p(1, at=0, ms=10),
        p(2, at=10, ms=20),
        p(3, at=30, ms=40, stereo=True),
        p(4, at=70, ms=60),
        p(5, at=130, ms=120),
        p(6, at=250),
        steps="p1 p2 p3 p4 p5 p6",
        silence_ms=0,
    ),
]

HOSTILE = [
    vector(
        "a corrupt packet is concealed as long as the last one",
        p(1, ms=60, at=0),
        raw(2, 60 * 48, GARBAGE),
        p(3, at=120),
        steps="p1 c60 p3",
        corrupt=1,
        lost=0,
    ),
    vector(
        "corrupt packets without end become silence",
        p(1),
        *(raw(2 + n, (40 + 20 * n) * 48, GARBAGE) for n in range(8)),
        p(10),
        steps="p1 c20 c20 c20 c20 c20 c20 s40 p10",
        corrupt=8,
        lost=0,
        jumps=0,
    ),
    vector(
        "a corrupt packet has its place in the order",
        p(1),
        raw(3, 60 * 48, GARBAGE),
        p(2, 4),
        steps="p1 p2 c20 p4",
        corrupt=1,
        reordered=1,
    ),
    vector(
        "a packet without a payload is dropped",
        p(1),
        raw(2, 40 * 48, b""),
        p(3),
        steps="p1 c20 p3",
        empty=1,
        lost=1,
    ),
    vector(
        "a timestamp that goes back moves the clock, the audio goes on",
        p(1),
        p(2, at=-7000),
        p(3, at=-6980),
        steps="p1 p2 p3",
        jumps=1,
        silence_ms=0,
    ),
    vector(
        "a timestamp from nowhere fills nothing",
        p(1),
        raw(2, 2**63, silk(2)),
        raw(3, -(2**63), silk(3)),
        p(4),
        steps="p1 p2 p3 p4",
        jumps=3,
        silence_ms=0,
    ),
    vector(
        "numbers from nowhere cost nothing",
        p(1),
        raw(2**63, 40 * 48, silk(2)),
        raw(-(2**63), 60 * 48, silk(3)),
        p(4),
        steps="p1 p2 p3 p4",
        restarts=3,
        lost=0,
    ),
]


@each(*GAPS, *HOSTILE)
def test_vector(case: Vector) -> None:
    hold(case)


def test_what_a_stall_of_the_worker_left_unread_is_read_before_silence_is_made_up() -> None:
    result = Run(TrackSettings())
    p(1)(result)
    result.now_s += 0.5
    assert result.sequencer.tick(result.now_s) == ()
    p(*range(2, 26))(result)
    result.advance(20)
    assert result.stats.silence_ms == 0


def test_a_worker_that_always_stalls_still_makes_up_silence() -> None:
    result = Run(TrackSettings())
    p(1)(result)
    for _ in range(4):
        result.now_s += 0.5
        if result.now_s >= result.sequencer.wake_s:
            result.put(result.sequencer.tick(result.now_s))
    assert result.stats.silence_ms >= 1000


def test_a_sender_clock_that_runs_a_little_fast_is_followed_within_a_millisecond() -> None:
    result = Run(TrackSettings())
    for number in range(2000):
        result.timestamps[number] = number * 961
        result.put(result.sequencer.push(number, number * 961, silk(number), result.now_s))
    check_times(result)
    assert result.stats.silence_ms == 2000 // 48
    assert result.stats.jumps == 0


def test_a_sender_clock_that_runs_a_little_slow_is_followed_within_a_millisecond() -> None:
    result = Run(TrackSettings())
    for number in range(2000):
        result.timestamps[number] = number * 959
        result.put(result.sequencer.push(number, number * 959, silk(number), result.now_s))
    check_times(result)
    assert result.stats.jumps == 1999 // 48


def test_nothing_is_to_be_done_before_the_next_frame_of_silence_is_due() -> None:
    result = Run(TrackSettings())
    p(1)(result)
    result.advance(160)
    assert result.now_s < result.sequencer.wake_s <= result.now_s + 0.021
    result.advance(3000)
    assert result.sequencer.wake_s == float("inf")


def test_a_long_silence_is_cut_into_pieces_that_a_replay_can_begin_with() -> None:
    result = run(p(1), p(2, at=2040))
    assert max(step.samples for step in result.steps) <= 4800


def test_what_waits_for_a_missing_packet_is_known() -> None:
    result = Run(TrackSettings())
    p(1, 3)(result)
    raw(4, 80 * 48, GARBAGE)(result)
    assert result.sequencer.held_packets == 1
