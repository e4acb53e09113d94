"""A link that catches up on a worker with too much to do sheds by the rule, and only then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from edge.asr.interface import AudioWanted, StreamRequest
from edge.asr.link import KEPT_MS, Link
from edge.asr.observer import NoObserver
from edge.asr.pursuit import LATE_S
from edge.asr.turn_ends import TurnEnds
from edge.audio.settings import TrackSettings
from edge.audio.track import AudioTrack
from tests.asr.support.scripted import Scripted
from tests.asr.support.supervision import QUICK, until
from tests.support.speech import speech_packets

PACKETS = speech_packets(200)


def feed(track: AudioTrack, first: int, count: int) -> None:
    for number in range(first, first + count):
        track.packet(number, number * 960, PACKETS[number], time.monotonic())


@asynccontextmanager
async def catching_up(held: int, came: int, stall_s: float) -> AsyncIterator[AudioTrack]:
    """So many packets are there when the link opens, so many come before its turn, late."""
    track = AudioTrack(TrackSettings())
    feed(track, 0, held)
    link = Link(
        Scripted(AudioWanted()), track, QUICK, TurnEnds(), lambda link, event: None, NoObserver()
    )
    await link.open(StreamRequest(track="t"), 0.0, 1.0)
    feed(track, held, came)
    running = asyncio.create_task(link.run())
    await asyncio.sleep(0)
    time.sleep(stall_s)
    try:
        await until(lambda: link.position_ms >= track.end_ms - 100)
        yield track
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await link.close()


async def test_one_that_waits_too_long_for_its_turn_sheds_all_but_the_newest() -> None:
    async with catching_up(0, 40, LATE_S + 0.05) as track:
        assert track.stats.shed_ms == 800 - KEPT_MS


async def test_one_whose_turn_comes_in_time_plays_all() -> None:
    async with catching_up(0, 40, 0.0) as track:
        assert track.stats.shed_ms == 0


async def test_what_waited_for_the_recognizer_is_played_however_late() -> None:
    async with catching_up(40, 0, LATE_S + 0.05) as track:
        assert track.stats.shed_ms == 0


async def test_one_whose_sender_is_ahead_of_real_time_plays_all() -> None:
    async with catching_up(0, 150, LATE_S + 0.05) as track:
        assert track.stats.shed_ms == 0
