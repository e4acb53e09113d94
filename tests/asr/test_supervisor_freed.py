"""A supervisor that has ended is freed at once: it leaves no cycle to the garbage collector.

That one comes after hundreds of tracks, and the memory of all of them would stay.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator

import pytest

from edge.asr.interface import AudioWanted
from edge.asr.supervisor import Supervisor
from tests.asr.fakes.openai_endpoint import FakeOpenAI, Fault
from tests.asr.support.scripted import Scripted
from tests.asr.support.supervision import Scene, openai, until

Way = Callable[[Scene], Awaitable[None]]


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def finished(played: Scene) -> None:
    await played.speaker.say("alpha")
    await played.supervisor.finish(5)
    assert played.listener.finals


async def finished_unheard(played: Scene) -> None:
    await until(lambda: played.counts.open)
    await played.supervisor.finish(5)


async def aborted(played: Scene) -> None:
    await played.speaker.say("alpha")
    await until(lambda: played.listener.interims)
    await played.supervisor.abort()


async def aborted_at_once(played: Scene) -> None:
    await asyncio.sleep(0)
    await played.supervisor.abort()


@pytest.mark.parametrize("way", [finished, finished_unheard, aborted, aborted_at_once])
async def test_an_ended_supervisor_is_freed_without_the_collector(way: Way) -> None:
    async with FakeOpenAI() as endpoint:
        supervisor = await ended(endpoint, way)
        await until(lambda: supervisor() is None)


async def test_so_is_one_that_never_reached_its_service() -> None:
    async with FakeOpenAI(faults=[Fault(hang=True)]) as endpoint:
        supervisor = await ended(endpoint, aborted_at_once)
        await until(lambda: supervisor() is None)


async def ended(endpoint: FakeOpenAI, way: Way) -> weakref.ref[Supervisor]:
    played = Scene((openai(endpoint.url),))
    played.supervisor.start()
    await way(played)
    return weakref.ref(played.supervisor)


async def test_a_stream_that_cannot_be_fed_is_closed() -> None:
    """A recognizer that asks for audio nobody can make costs its track, and no connection."""
    unknown = Scripted(forms={"opus": AudioWanted(rate_hz=44100)})
    played = Scene((unknown,))
    played.supervisor.start()
    await until(lambda: played.listener.errors)
    await played.supervisor.abort()
    assert [stream.closed for stream in unknown.streams] == [True]
    assert not played.counts.open
