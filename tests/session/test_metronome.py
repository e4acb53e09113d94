"""The metronome: every member is called, one that fails never silences the others."""

from __future__ import annotations

import asyncio
import time

from edge.audio.track import PacketOrder
from edge.session.metronome import INTERVAL_S, LATE_S, Metronome


async def test_members_are_called_until_they_leave_and_a_failing_one_is_dropped() -> None:
    errors: list[tuple[object, str]] = []
    metronome = Metronome(lambda key, error: errors.append((key, str(error))))
    called = asyncio.Event()
    beats: list[float] = []

    def good(now_s: float) -> None:
        beats.append(now_s)
        if len(beats) == 5:
            called.set()

    def bad(now_s: float) -> None:
        raise RuntimeError("broken")

    metronome.add("bad", PacketOrder(), bad)
    metronome.add("good", PacketOrder(), good)
    await asyncio.wait_for(called.wait(), 5)
    metronome.remove("good")
    assert errors == [("bad", "broken")]
    assert beats == sorted(beats)
    count = len(beats)
    metronome.add("other", PacketOrder(), lambda now_s: called.clear())
    await asyncio.wait_for(asyncio.to_thread(lambda: None), 5)
    metronome.stop()
    assert len(beats) == count


async def test_a_fault_in_reporting_a_failure_does_not_stop_the_beat() -> None:
    loop = asyncio.get_running_loop()
    faults: list[object] = []
    loop.set_exception_handler(lambda loop, context: faults.append(context["exception"]))

    def report(key: object, error: BaseException) -> None:
        raise LookupError(str(key))

    def bad(now_s: float) -> None:
        raise RuntimeError("broken")

    metronome = Metronome(report)
    called = asyncio.Event()
    metronome.add("bad", PacketOrder(), bad)
    metronome.add("good", PacketOrder(), lambda now_s: called.set())
    await asyncio.wait_for(called.wait(), 5)
    metronome.stop()
    assert [type(fault) for fault in faults] == [LookupError]


async def test_a_member_that_brings_another_does_not_hasten_the_beat() -> None:
    metronome = Metronome(lambda key, error: None)
    done = asyncio.Event()
    beats: list[float] = []

    def tick(now_s: float) -> None:
        beats.append(now_s)
        metronome.add(len(beats), PacketOrder(), lambda now_s: None)
        if len(beats) == 10:
            done.set()

    metronome.add("first", PacketOrder(), tick)
    await asyncio.wait_for(done.wait(), 5)
    metronome.stop()
    assert beats[-1] - beats[0] >= 8 * INTERVAL_S


async def test_a_member_is_called_when_its_time_has_come_and_not_before() -> None:
    metronome = Metronome(lambda key, error: None)
    done = asyncio.Event()
    called: list[str] = []
    later, soon = PacketOrder(), PacketOrder()
    later.wake_s = time.monotonic() + 3600
    soon.wake_s = time.monotonic() + 2 * INTERVAL_S

    def tick(now_s: float) -> None:
        assert now_s >= soon.wake_s
        called.append("soon")
        done.set()

    metronome.add("later", later, lambda now_s: called.append("later"))
    metronome.add("soon", soon, tick)
    await asyncio.wait_for(done.wait(), 5)
    metronome.stop()
    assert called == ["soon"]


async def test_after_a_stall_what_has_arrived_is_read_before_anybody_counts_as_silent() -> None:
    metronome = Metronome(lambda key, error: None)
    beats: list[float] = []
    metronome.add("one", PacketOrder(), beats.append)
    stall_s = 2 * LATE_S
    time.sleep(INTERVAL_S)
    time.sleep(stall_s)
    over_s = time.monotonic()
    while not beats:
        await asyncio.sleep(INTERVAL_S)
    metronome.stop()
    assert beats[0] - over_s >= stall_s - INTERVAL_S
