"""A recognizer is let go of while nothing is said, and asked again with the next sound."""

from __future__ import annotations

import asyncio
import time

import msgspec

from edge.asr.link import WARM_UP_MS
from edge.asr.supervisor import PRE_ROLL_MS
from edge.audio.pcm import PcmFormat
from edge.errors import RecognizerBusy
from tests.asr.support.scripted import Scripted, begin_ms, heard, stream_of
from tests.asr.support.supervision import QUICK, scene, until
from tests.asr.support.tones import silence, words_in

RATE_HZ = 16000
IDLE = msgspec.structs.replace(QUICK, recognizer_idle_s=0.15)


async def test_an_idle_recognizer_is_closed_and_opens_with_the_next_sound() -> None:
    service = Scripted()
    async with scene(service, settings=IDLE) as played:
        await played.speaker.say("alpha", pause_ms=200)
        first = await heard(await stream_of(service, 0), 700)
        first.final("alpha", 0, 700)
        await until(lambda: first.closed)
        assert first.draining, "what it owed was awaited"
        await played.speaker.say("bravo", pause_ms=300)
        second = await heard(await stream_of(service, 1), 900)
        assert words_in(bytes(second.audio), RATE_HZ) == "bravo"
        began_ms = begin_ms(played, second)
        second.final("bravo", 800 - began_ms, 1400 - began_ms)
    assert played.listener.text == "alpha bravo"
    assert played.counts.errors == {}


async def test_pauses_that_are_sent_keep_no_recognizer_open_and_wake_none() -> None:
    """DTX packets, which have no sound, and silence in PCM."""
    service = Scripted()
    async with scene(service, settings=IDLE) as played:
        played.track.restart(PcmFormat(rate_hz=48000, channels=1))
        await until(lambda: service.streams)
        quiet = silence(20, 48000)
        for number in range(40):
            played.track.packet(number, number * 960, quiet, time.monotonic())
            await asyncio.sleep(0.01)
        await until(lambda: service.streams[0].closed)
        for number in range(40, 400):
            played.track.packet(number, number * 960, quiet, time.monotonic())
        await asyncio.sleep(0.05)
        assert len(service.streams) == 1
        for number in range(400, 410):
            played.track.packet(number, number * 960, b"\1\2" * 960, time.monotonic())
        second = await stream_of(service, 1)
        await until(lambda: any(second.audio))
        assert begin_ms(played, second) >= 8020 - PRE_ROLL_MS - WARM_UP_MS - 20
        assert played.track.stats.overflow_dropped_ms == 0


async def test_what_is_said_while_an_idle_recognizer_closes_is_heard_by_the_next() -> None:
    service = Scripted(drains=False)
    async with scene(service, settings=IDLE) as played:
        await played.speaker.say("alpha", pause_ms=100)
        first = await heard(await stream_of(service, 0), 700)
        first.final("alpha", 0, 650)
        await until(lambda: first.draining)
        await played.speaker.say("bravo", pause_ms=200)
        assert first.heard_until_ms == 700, "it was told to finish"
        first.may_drain.set()
        second = await heard(await stream_of(service, 1), 800)
        assert words_in(bytes(second.audio), RATE_HZ) == "bravo"


async def test_an_idle_recognizer_that_fails_as_it_closes_owes_its_text_still() -> None:
    service = Scripted(drains=False)
    async with scene(service, settings=IDLE) as played:
        await played.speaker.say("alpha", pause_ms=100)
        first = await stream_of(service, 0)
        await until(lambda: first.draining)
        first.fail()
        second = await heard(await stream_of(service, 1), 700)
        assert words_in(bytes(second.audio), RATE_HZ) == "alpha"


async def test_an_idle_track_ends_at_once() -> None:
    service = Scripted()
    async with scene(service, settings=IDLE) as played:
        await until(lambda: service.streams and service.streams[0].closed)
        async with asyncio.timeout(5):
            await played.supervisor.finish(30)
        assert len(service.streams) == 1


async def test_a_better_recognizer_that_has_come_back_is_used_when_an_idle_track_wakes() -> None:
    best = Scripted("best", refusals=[RecognizerBusy("later")] * 3)
    other = Scripted("other")
    async with scene(best, other, settings=IDLE) as played:
        await played.speaker.say("alpha", pause_ms=100)
        (await heard(await stream_of(other, 0), 600)).final("alpha", 0, 700)
        await until(lambda: other.streams[0].closed)
        played.supervisor._choices._choices[0].failed_at_s -= 60
        await played.speaker.say("bravo", pause_ms=100)
        await stream_of(best, 0)
        assert len(other.streams) == 1


# Forms of audio
