"""The metronome: every member is called, one that fails never silences the others."""

from __future__ import annotations

import asyncio

from edge.session.metronome import Metronome


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

    metronome.add("bad", bad)
    metronome.add("good", good)
    await asyncio.wait_for(called.wait(), 5)
    metronome.remove("good")
    assert errors == [("bad", "broken")]
    assert beats == sorted(beats)
    count = len(beats)
    metronome.add("other", lambda now_s: called.clear())
    await asyncio.wait_for(asyncio.to_thread(lambda: None), 5)
    metronome.stop()
    assert len(beats) == count
