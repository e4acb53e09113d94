"""What speakers of media servers say is in the log, whatever becomes of workers and store."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from edge.session.entries import FinalEntry, JoinEntry, decode_entry
from edge.session.store.interface import Entry
from edge.session.store.opening import open_store
from tests.asr.fakes.openai_endpoint import FakeOpenAI
from tests.ingest.support.media import MediaClient, openai_environment
from tests.session.store.support.valkey import Valkey
from tests.support.server import Server, running

WITHIN_S = 15.0


@asynccontextmanager
async def service() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as endpoint:
        yield endpoint


@asynccontextmanager
async def joined(server: Server, session: str) -> AsyncIterator[MediaClient]:
    address = f"ws://{server.address}/transcribe?sessionId={session}&sendBack=true&times=true"
    async with connect(address, compression=None) as socket:
        yield MediaClient(socket)
        socket.transport.abort()


async def log_of(location: str, session: str) -> list[Entry]:
    async with open_store(location) as store:
        page = await store.read(session, 0)
        return list(page.entries) if page else []


def finals(entries: list[Entry]) -> list[FinalEntry]:
    bodies = [decode_entry(entry.body) for entry in entries]
    return [body for body in bodies if isinstance(body, FinalEntry)]


def texts(entries: list[Entry]) -> list[str]:
    return [final.text for final in finals(entries)]


def joins(entries: list[Entry]) -> list[str]:
    bodies = [decode_entry(entry.body) for entry in entries]
    return [body.speaker for body in bodies if isinstance(body, JoinEntry)]


async def logged(location: str, session: str, words: list[str]) -> list[Entry]:
    """The log, once its finals are these."""
    async with asyncio.timeout(WITHIN_S):
        while texts(entries := await log_of(location, session)) != words:
            await asyncio.sleep(0.05)
    return entries


async def have_joined(location: str, session: str, speakers: list[str]) -> list[Entry]:
    """The log, once these have joined."""
    seen: list[str] = []
    try:
        async with asyncio.timeout(WITHIN_S):
            while (seen := joins(entries := await log_of(location, session))) != speakers:
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"{seen} have joined, not {speakers}") from None
    return entries


def in_order(entries: list[Entry]) -> bool:
    """Offsets without a hole, and no entry of a track behind one with a later fence."""
    fences: dict[str, int] = {}
    for number, entry in enumerate(entries, 1):
        if entry.offset != number or entry.fence < fences.get(entry.track, 0):
            return False
        fences[entry.track] = entry.fence
    return True


async def test_a_meeting_is_in_the_log_and_goes_on_at_another_gateway(tmp_path: Path) -> None:
    """The older gateway finishes what was said before the newer one writes; nothing is told twice,
    and what could not be told any more is told by the newer one."""
    store = str(tmp_path / "sessions.db")
    async with service() as endpoint:
        settings = openai_environment(endpoint, EDGESCRIBE_STORE=store, FORCE_COMMIT_TIMEOUT="30")
        with (
            running("--workers", "1", environment=settings) as one,
            running("--workers", "1", environment=settings) as two,
        ):
            async with joined(one, "m") as first:
                await first.say("a", "alpha")
                await first.until(lambda: first.text("a") == "alpha")
                await first.say("b", "bravo", pause_ms=0)
                await logged(store, "m", ["alpha"])
                await have_joined(store, "m", ["a", "b"])
                async with joined(two, "m") as second:
                    await second.say("a", "charlie")
                    assert (await first.closed())[0] == 4009
                    await second.until(lambda: second.text("a") == "charlie")
                    await second.until(lambda: second.text("b") == "bravo")
                    entries = await logged(store, "m", ["alpha", "bravo", "charlie"])
                    assert first.text("b") == "", "told by who came after it"
                    by_tag = {final.text: final for final in finals(entries)}
                    assert by_tag["charlie"].start_ms > by_tag["alpha"].end_ms, "one clock"
                    assert not by_tag["bravo"].sent and by_tag["alpha"].sent
                    assert in_order(await have_joined(store, "m", ["a", "b", "a"]))
            async with joined(one, "m") as third:
                await third.say("a", "delta")
                await third.until(lambda: third.text("a") == "delta")
                assert third.text("b") == "", "it has been told"


async def test_the_death_of_a_worker_loses_nothing_that_is_in_the_log(tmp_path: Path) -> None:
    store = str(tmp_path / "sessions.db")
    async with service() as endpoint:
        settings = openai_environment(endpoint, EDGESCRIBE_STORE=store)
        with running("--workers", "2", environment=settings) as server:
            words: list[str] = []
            for word in ("alpha", "bravo", "charlie"):
                async with joined(server, "m") as media:
                    await media.say("a", word)
                    await media.until(lambda media=media, word=word: media.text("a") == word)
                    words.append(word)
                    await logged(store, "m", words)
                    workers = server.workers()
                    for worker in workers[: 1 + len(words) % 2]:
                        server.kill_worker(worker)
                began_s = time.monotonic()
                while True:
                    try:
                        async with joined(server, "m"):
                            break
                    except OSError:
                        assert time.monotonic() - began_s < 5
                        await asyncio.sleep(0.05)
            assert in_order(await logged(store, "m", words))


async def test_a_speaker_does_not_notice_a_store_that_is_away(tmp_path: Path) -> None:
    """Finals come as fast, and all of them are in the log when the store is back."""
    # Otherwise Valkey may answer before it has written, while the disk is busy: a kill loses that.
    valkey = Valkey(tmp_path, "--appendfsync", "always")
    valkey.start()
    try:
        async with service() as endpoint:
            settings = openai_environment(endpoint, EDGESCRIBE_STORE=valkey.url)
            with running("--workers", "1", environment=settings) as server:
                async with joined(server, "m") as media:
                    words, took_s = [], []
                    for number, word in enumerate(("alpha", "bravo", "charlie", "delta")):
                        if number == 1:
                            valkey.kill()
                        began_s = time.monotonic()
                        await media.say("a", word)
                        words.append(word)
                        await media.until(lambda: media.text("a") == " ".join(words))
                        took_s.append(time.monotonic() - began_s)
                    assert max(took_s[1:]) < took_s[0] + 1
                    valkey.start()
                    assert in_order(await logged(valkey.url, "m", words))
    finally:
        valkey.kill()


async def test_a_deleted_session_takes_nothing_more(tmp_path: Path) -> None:
    store = str(tmp_path / "sessions.db")
    async with service() as endpoint:
        settings = openai_environment(endpoint, EDGESCRIBE_STORE=store)
        with running("--workers", "2", environment=settings) as server:
            async with joined(server, "m") as media:
                await media.say("a", "alpha")
                await logged(store, "m", ["alpha"])
                assert server.get("/v1/sessions/m", "DELETE").status < 300
                await media.say("a", "bravo")
                assert (await media.closed())[0] == 4004
            assert server.get("/v1/sessions/m").status == 404
            assert await log_of(store, "m") == []


@pytest.mark.parametrize("number", [signal.SIGTERM])
async def test_a_stop_logs_the_finals_of_audio_that_was_sent(
    tmp_path: Path, number: signal.Signals
) -> None:
    store = str(tmp_path / "sessions.db")
    async with service() as endpoint:
        settings = openai_environment(endpoint, EDGESCRIBE_STORE=store)
        with running("--workers", "1", environment=settings) as server:
            async with joined(server, "m") as media:
                await media.say("a", "alpha")
                await media.until(lambda: media.text("a") == "alpha")
                await media.say("a", "bravo", pause_ms=0)
                server.send_signal(number)
                assert (await media.closed())[0] == 1001
                assert media.text("a") == "alpha bravo"
            assert server.wait() == 0
        assert texts(await log_of(store, "m")) == ["alpha", "bravo"]
