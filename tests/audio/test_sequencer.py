"""Which steps come of which packets: numbering, loss, order, gaps and the clock, as vectors."""

from __future__ import annotations

import msgspec
import pytest

from edge.audio.settings import TrackSettings
from edge.audio.steps import StepKind
from tests.audio.support.packets import label, silk
from tests.audio.support.sequence import Event, Run, p, raw, run, start, wait

GARBAGE = b"\xff\xff"


class Vector(msgspec.Struct):
    promise: str
    events: tuple[Event, ...]
    steps: str
    counts: dict[str, int] = {}
    settings: TrackSettings = TrackSettings()


def vector(
    promise: str, *events: Event, steps: str, settings: TrackSettings | None = None, **counts: int
) -> Vector:
    return Vector(promise, events, steps, counts, settings or TrackSettings())


def no_reorder(**more: int) -> TrackSettings:
    return TrackSettings(reorder_packets=0, reorder_wait_ms=0, **more)


def short(text: int) -> int:
    return text % 65536


ORDER = [
    vector("packets in order are steps at once", p(5, 6, 7), steps="p5 p6 p7", received=3),
    vector("numbers may start anywhere", p(64000, 64001), steps="p64000 p64001"),
    vector(
        "one that was overtaken by one is put in its place",
        p(1, 3, 2, 4),
        steps="p1 p2 p3 p4",
        reordered=1,
    ),
    vector(
        "one that was overtaken by three is put in its place",
        p(1, 3, 4, 5, 2),
        steps="p1 p2 p3 p4 p5",
        reordered=1,
    ),
    vector(
        "a fourth overtaker ends the wait, and what comes then is late",
        p(1, 3, 4, 5, 6, 2, 7),
        steps="p1 c20 p3 p4 p5 p6 p7",
        lost=1,
        concealed=1,
        late=1,
    ),
    vector(
        "two that come in reverse are both put in place",
        p(1, 4, 3, 2),
        steps="p1 p2 p3 p4",
        reordered=2,
    ),
    vector(
        "more than 60 ms of waiting end the wait",
        p(1, 3),
        wait(80),
        p(2, 4),
        steps="p1 c20 p3 p4",
        lost=1,
        late=1,
    ),
    vector("40 ms of waiting do not", p(1, 3), wait(40), p(2, 4), steps="p1 p2 p3 p4", reordered=1),
    vector(
        "a doubled packet is dropped, played or waiting",
        p(1, 1, 3, 3, 2, 2, 1),
        steps="p1 p2 p3",
        duplicate=4,
        reordered=1,
    ),
    vector(
        "the wait is for the packet that was overtaken first",
        p(1, 3),
        wait(40),
        p(4),
        wait(40),
        p(2, 5),
        steps="p1 c20 p3 p4 p5",
        late=1,
    ),
    vector(
        "what came after a loss is known to have come",
        p(1, 3),
        wait(80),
        p(3, 1, 2),
        steps="p1 c20 p3",
        duplicate=2,
        late=1,
    ),
    vector("one before the first is late", p(5, 4, 6), steps="p5 p6", late=1),
    vector(
        "without a window the next packet ends the wait",
        p(1, 3, 2, 4),
        steps="p1 c20 p3 p4",
        settings=no_reorder(),
        late=1,
    ),
    vector(
        "each missing packet is waited for on its own",
        p(1, 3, 5),
        wait(40),
        p(2, 4),
        steps="p1 p2 p3 p4 p5",
        reordered=2,
    ),
]

LOSS = [
    vector(
        "a lost packet is recovered from the copy in the next",
        p(1),
        p(3, fec=True),
        steps="p1 f20 p3",
        lost=1,
        recovered_fec=1,
        concealed=0,
    ),
    vector("without a copy it is concealed", p(1, 3), steps="p1 c20 p3", lost=1, concealed=1),
    vector(
        "of several all but the last are concealed, the last is recovered",
        p(1),
        p(5, fec=True),
        steps="p1 c20 c20 f20 p5",
        lost=3,
        concealed=2,
        recovered_fec=1,
    ),
    vector(
        "at most 120 ms are concealed, the rest is silence",
        p(1, 11),
        steps="p1 c20 c20 c20 c20 c20 c20 s60 p11",
        lost=9,
        concealed=6,
        silenced=3,
        silence_ms=60,
    ),
    vector(
        "the copy comes last, after the silence",
        p(1),
        p(12, fec=True),
        steps="p1 c20 c20 c20 c20 c20 c20 s60 f20 p12",
        concealed=6,
        silenced=3,
        recovered_fec=1,
    ),
    vector(
        "a gap of more than max_gap_fill_ms is filled to there, then the clock jumps",
        p(1, 202),
        steps="p1 c20 c20 c20 c20 c20 c20 s1880 p202",
        lost=200,
        concealed=6,
        silenced=94,
        skipped=100,
        jumps=1,
    ),
    vector(
        "the timestamps bound what is concealed",
        p(1),
        p(6, at=50),
        steps="p1 c10 p6",
        lost=4,
        concealed=1,
        skipped=3,
        jumps=0,
    ),
    vector(
        "a loss that cost no time conceals nothing",
        p(1),
        p(3, at=40),
        steps="p1 p3",
        lost=1,
        skipped=1,
        jumps=0,
    ),
    vector(
        "a loss within a pause is bridged where speech broke off and where it goes on",
        p(1),
        p(4, at=500, fec=True),
        steps="p1 c20 s420 f20 p4",
        lost=2,
    ),
    vector(
        "lost packets are as long as the last one: 60 ms",
        p(1, 2, 4, ms=60),
        steps="p1 p2 c60 p4",
        lost=1,
    ),
    vector("lost packets of 10 ms", p(1, 4, ms=10), steps="p1 c10 c10 p4", lost=2),
    vector("lost packets of 40 ms", p(1), p(3, ms=40), steps="p1 c20 s60 p3", lost=1),
    vector("a lost packet of 120 ms", p(1, 3, ms=120), steps="p1 c120 p3", lost=1, concealed=1),
    vector(
        "a lost packet of 120 ms is recovered as a whole",
        p(1, ms=120),
        p(3, ms=120, fec=True),
        steps="p1 f120 p3",
        recovered_fec=1,
    ),
    vector(
        "without timestamps a loss is as long as its packets",
        p(1, 4, timed=False),
        steps="p1 c20 c20 p4",
        lost=2,
    ),
    vector(
        "two losses apart are each concealed up to 120 ms",
        p(1, 7, 13),
        steps="p1 c20 c20 c20 c20 c20 p7 c20 c20 c20 c20 c20 p13",
        concealed=10,
    ),
    vector(
        "of a jump of a million packets only what may be filled is filled",
        p(1),
        p(20_000, at=1000 * 20_000),
        steps="p1 c20 c20 c20 c20 c20 c20 p20000",
        lost=19_998,
        skipped=19_992,
        jumps=1,
    ),
]

NUMBERING = [
    vector(
        "65535 goes on with 0",
        p(65534, 65535, 65536, 65537, chunk_of=short),
        steps="p65534 p65535 p0 p1",
        lost=0,
        restarts=0,
    ),
    vector(
        "a loss across the wrap is a loss",
        p(65535, 65537, chunk_of=short),
        steps="p65535 c20 p1",
        lost=1,
        restarts=0,
    ),
    vector(
        "order is kept across the wrap",
        p(65534, 65536, 65535, 65537, chunk_of=short),
        steps="p65534 p65535 p0 p1",
        reordered=1,
        restarts=0,
    ),
    vector(
        "a packet from before the wrap is late",
        p(65534, 65536, chunk_of=short),
        wait(80),
        p(65535, 65537, chunk_of=short),
        steps="p65534 c20 p0 p1",
        late=1,
        restarts=0,
    ),
    vector(
        "unwrapped numbers go on beyond 65535",
        p(65535, 65536, 65537),
        steps="p65535 p0 p1",
        lost=0,
        restarts=0,
    ),
    vector(
        "numbers that fall by more than half their range start anew",
        p(40000),
        p(17, at=800_020),
        p(18, at=800_040),
        steps="p40000 p17 p18",
        restarts=1,
        lost=0,
        late=0,
        jumps=0,
    ),
    vector(
        "unwrapped numbers that fall to little start anew",
        p(70000),
        p(9, at=1_400_020),
        steps="p4464 p9",
        restarts=1,
        lost=0,
    ),
    vector(
        "numbers that rise by more than half their range start anew",
        p(1),
        p(2, at=40, chunk_of=lambda number: 1_000_000),
        p(3, at=60, chunk_of=lambda number: 1_000_001),
        steps="p1 p2 p3",
        restarts=1,
        lost=0,
    ),
    vector(
        "a start event lets numbers begin anywhere",
        p(300, 301),
        start(),
        p(7, at=6040),
        p(8, at=6060),
        steps="p300 p301 p7 p8",
        restarts=0,
        late=0,
        lost=0,
    ),
    vector(
        "a start event plays what waits first",
        p(300, 302),
        start(),
        p(7, at=6060),
        steps="p300 c20 p302 p7",
        lost=1,
    ),
    vector(
        "a sender that starts anew at a slightly lower number is not muted",
        p(*range(300, 303)),
        p(*range(5, 12), at=6060),
        steps="p300 p301 p302 p9 p10 p11",
        restarts=1,
        late=4,
    ),
    vector(
        "one stray number does not mute the track",
        p(1, 20000),
        wait(80),
        p(*range(2, 9), at=60),
        steps="p1 c20 c20 c20 c20 c20 c20 p20000 p6 p7 p8",
        settings=TrackSettings(max_gap_fill_ms=0),
        restarts=1,
        late=4,
    ),
    vector(
        "without numbers packets are taken as they come",
        p(1, 2, 3, numbered=False),
        steps="p1 p2 p3",
        lost=0,
        late=0,
    ),
    vector(
        "without numbers gaps are silence",
        p(1, 4, numbered=False),
        steps="p1 s40 p4",
        lost=0,
        silence_ms=40,
    ),
    vector(
        "one packet without a number ends the wait for others and sets none",
        p(1, 3),
        p(4, numbered=False),
        p(9, at=100),
        steps="p1 c20 p3 p4 p9",
        lost=1,
        late=0,
    ),
    vector("negative numbers are numbers", p(3, -5, 4), steps="p3 p4", late=1),
]

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


def check_times(result: Run) -> None:
    """Each packet's place in the audio is mapped to the time it was sent with."""
    position = 0
    for step in result.steps:
        assert step.samples > 0
        if step.kind is StepKind.PACKET:
            sent = result.timestamps.get(label(step.payload))
            if sent is not None:
                heard_ms = result.sequencer.timeline.map_ms(position / 48)
                assert heard_ms == pytest.approx(sent / 48, abs=1.0)
        position += step.samples
    assert result.sequencer.end == position


@pytest.mark.parametrize(
    "case",
    [*ORDER, *LOSS, *NUMBERING, *GAPS, *HOSTILE],
    ids=lambda case: case.promise.replace(" ", "_"),
)
def test_vector(case: Vector) -> None:
    result = run(*case.events, settings=case.settings)
    assert result.notation() == case.steps
    counts = {name: getattr(result.stats, name) for name in case.counts}
    assert counts == case.counts
    stats = result.stats
    assert stats.lost == (stats.recovered_fec + stats.concealed + stats.silenced + stats.skipped)
    check_times(result)


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
