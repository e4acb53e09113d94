"""Closes of edge.session.v1 that are the gateway's side: no recognizer, no room, no store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

from tests.asr.fakes.openai_endpoint import FakeOpenAI, Fault
from tests.asr.support.tones import sentence, silence
from tests.ingest.support.media import openai_environment
from tests.ingest.support.session import SessionClient, client
from tests.session.store.support.valkey import Valkey
from tests.support.server import QUIET_RECOGNIZER, Server, running

RATE_HZ = 16000
FRAME_BYTES = RATE_HZ // 50 * 2
REFUSED = Fault(status=HTTPStatus.UNAUTHORIZED)


def frames(words: str) -> list[bytes]:
    pcm = sentence(words, RATE_HZ) + silence(700, RATE_HZ)
    return [pcm[at : at + FRAME_BYTES] for at in range(0, len(pcm), FRAME_BYTES)]


@asynccontextmanager
async def gateway(faults: list[Fault]) -> AsyncIterator[Server]:
    """Whose recognizer's connections have these faults, one after the other."""
    async with FakeOpenAI(faults=faults) as service:
        with running("--workers", "1", environment=openai_environment(service)) as server:
            yield server


async def assert_refused(page: SessionClient, close: int, code: str) -> None:
    """It is told why, that it may come back, and closed."""
    assert (await page.closed())[0] == close
    error = page.of("err")[-1]
    assert (error["code"], error["retry"]) == (code, True)


async def test_1011_where_the_recognizer_refuses_for_good() -> None:
    """Only the speaker is closed: a follower of the session stays, and others are heard."""
    async with (
        gateway([REFUSED, Fault()]) as server,
        client(server, "session=deaf") as listener,
        client(server, "session=deaf&speaker=anna") as anna,
    ):
        await listener.hello()
        await anna.hello("speaker")
        await anna.audio(*frames("alpha"))
        await assert_refused(anna, 1011, "recognizer_failed")
        async with client(server, "session=deaf&speaker=bert") as bert:
            await bert.hello("speaker")
            await bert.audio(*frames("bravo"))
            await listener.until(lambda: listener.events("final"))
        assert [final["data"]["text"] for final in listener.events("final")] == ["bravo"]


async def test_1011_where_the_recognizer_goes_for_good() -> None:
    """What it had understood is in the log; the rest is sent again by the speaker that comes back,
    and heard."""
    said = frames("alpha") + frames("bravo") + frames("charlie")
    async with gateway([Fault(drop_after_ms=2000), REFUSED]) as server:
        async with client(server, "session=gone&speaker=anna") as anna:
            await anna.hello("speaker")
            await anna.audio(*frames("alpha"))
            await anna.until(lambda: anna.events("final"))
            await anna.audio(*frames("bravo"))
            await assert_refused(anna, 1011, "recognizer_failed")
            known = {"epoch": anna.of("welcome")[0]["epoch"], "offset": anna.offsets[-1]}
            resume = {**known, "audio_seq": anna.of("ack")[-1]["seq"]}
        async with client(server, "session=gone&speaker=anna") as anna:
            welcome = await anna.hello("speaker", resume=resume)
            assert welcome["recovered"]
            anna.seq = welcome["audio_ack"]
            await anna.audio(*said[anna.seq :])
            await anna.until(lambda: len(anna.events("final")) == 2)
            texts = [final["data"]["text"] for final in anna.events("final")]
            assert texts == ["bravo", "charlie"]


async def test_1013_where_the_worker_carries_as_many_tracks_as_it_may() -> None:
    """Who speaks already goes on; with its place free again the other one may come."""
    environment = {**QUIET_RECOGNIZER, "EDGESCRIBE_MAX_TRACKS": "1"}
    with running("--workers", "1", environment=environment) as server:
        async with client(server, "session=full&speaker=anna") as anna:
            await anna.hello("speaker")
            await anna.audio(bytes(FRAME_BYTES))
            await anna.until(lambda: anna.of("ack"))
            async with client(server, "session=full&speaker=bert") as bert:
                await bert.hello("speaker")
                await bert.audio(bytes(FRAME_BYTES))
                await assert_refused(bert, 1013, "overloaded")
            await anna.send("ping")
            await anna.until(lambda: anna.of("pong"))
            await anna.send("cmd", id="bye", op="leave")
            assert (await anna.closed())[0] == 1000
        async with client(server, "session=other&speaker=bert") as bert:
            await bert.hello("speaker")
            await bert.audio(bytes(FRAME_BYTES))
            await bert.until(lambda: bert.of("ack"))


async def test_1013_where_the_store_does_not_answer(tmp_path: Path) -> None:
    """Nobody is welcomed that could not be told what is in the log; later everybody is."""
    store = Valkey(tmp_path)
    store.start()
    try:
        environment = {**QUIET_RECOGNIZER, "EDGESCRIBE_STORE": store.url}
        with running("--workers", "1", environment=environment) as server:
            store.kill()
            async with (
                client(server, "session=dark") as listener,
                client(server, "session=dark&speaker=anna") as anna,
            ):
                await listener.send("hello", role="listener")
                await anna.send("hello", role="speaker")
                for page in (listener, anna):
                    await assert_refused(page, 1013, "store_unavailable")
                    assert not page.of("welcome")
            store.start()
            async with client(server, "session=dark&speaker=anna") as anna:
                await anna.hello("speaker")
    finally:
        store.kill()
