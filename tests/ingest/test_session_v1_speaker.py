"""Speakers of edge.session.v1: heard at once, stored once, taken along to other workers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from tests.asr.fakes.openai_endpoint import FakeOpenAI
from tests.asr.support.tones import packets, sentence, silence
from tests.ingest.support.media import client as media_client
from tests.ingest.support.media import openai_environment
from tests.ingest.support.session import Message, SessionClient, client
from tests.support.server import Server, running

RATE_HZ = 16000
FRAME_BYTES = RATE_HZ // 50 * 2
PAUSE_MS = 700


def frames(words: str, pause_ms: int = PAUSE_MS) -> list[bytes]:
    """The words' tones and a pause as frames of 20 ms."""
    pcm = sentence(words, RATE_HZ) + silence(pause_ms, RATE_HZ)
    return [pcm[at : at + FRAME_BYTES] for at in range(0, len(pcm), FRAME_BYTES)]


@asynccontextmanager
async def gateway(workers: int, **environment: str) -> AsyncIterator[Server]:
    async with FakeOpenAI() as endpoint:
        settings = openai_environment(endpoint, **environment)
        with running("--workers", str(workers), environment=settings) as server:
            yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    """One worker, for tests that leave it alone."""
    async with gateway(1, SESSION_RESUME_GRACE_PERIOD="5") as running:
        yield running


def texts(page: SessionClient) -> list[str]:
    """What was said, each once however often its offset came."""
    return list({event["o"]: event["data"]["text"] for event in page.events("final")}.values())


def resume_of(page: SessionClient, audio_seq: int | None = None) -> Message:
    """What a page knows when it comes back."""
    last = page.offsets[-1] if page.offsets else page.of("welcome")[-1]["offset"]
    known = {"epoch": page.of("welcome")[-1]["epoch"], "offset": last}
    return known if audio_seq is None else {**known, "audio_seq": audio_seq}


@pytest.mark.asyncio(loop_scope="module")
async def test_a_speaker_sees_its_words_at_once_and_others_see_them_stored(server: Server) -> None:
    async with (
        client(server, "session=talk") as listener,
        client(server, "session=talk&speaker=anna") as anna,
    ):
        await listener.hello()
        await anna.hello("speaker")
        await anna.audio(*frames("alpha bravo"))
        await anna.until(lambda: anna.events("final"))
        await listener.until(lambda: listener.events("turn_end"))
        assert texts(anna) == texts(listener) == ["alpha bravo"]
        own = [part for part in anna.of("part") if part["text"] == "alpha bravo"][-1]
        assert own["stable"] == len("alpha bravo")
        final = anna.events("final")[0]["data"]
        assert (own["speaker"], own["turn"]) == ("anna", final["turn"])
        revisions = [part["rev"] for part in anna.of("part")]
        assert revisions == list(range(1, len(revisions) + 1))
        order = [m.get("k", m["type"]) for m in anna.messages]
        assert order.index("part") < order.index("final")
        kinds = [event["k"] for event in listener.of("ev")]
        assert [kind for kind in kinds if kind != "join"] == ["turn_start", "final", "turn_end"]
        assert listener.offsets == sorted(set(listener.offsets))


@pytest.mark.asyncio(loop_scope="module")
async def test_opus_packets_are_heard(server: Server) -> None:
    async with client(server, "session=opus") as page:
        await page.hello("speaker", audio={"encoding": "opus", "rate": 48000, "channels": 1})
        await page.audio(*packets(sentence("charlie delta", 48000) + silence(PAUSE_MS, 48000)))
        await page.until(lambda: texts(page) == ["charlie delta"])


@pytest.mark.asyncio(loop_scope="module")
async def test_streams_of_one_speaker_are_tracks_of_their_own(server: Server) -> None:
    async with client(server, "session=streams&speaker=anna") as page:
        await page.hello("speaker")
        await page.audio(*frames("alpha"))
        await page.audio(*frames("bravo"), stream=2)
        await page.until(lambda: len(texts(page)) == 2)
        said = {event["data"]["speaker"]: event["data"]["text"] for event in page.events("final")}
        assert said == {"anna": "alpha", "anna/2": "bravo"}


@pytest.mark.asyncio(loop_scope="module")
async def test_words_that_come_again_after_a_loss_are_heard_once(server: Server) -> None:
    said = frames("alpha bravo charlie")
    half = len(said) // 2
    async with client(server, "session=again&speaker=anna") as page:
        await page.hello("speaker")
        await page.audio(*said[:half])
        await page.until(lambda: page.of("ack"))
        acked = page.of("ack")[-1]["seq"]
        await page.lose()
        resume = resume_of(page, acked)
    async with client(server, "session=again&speaker=anna") as page:
        welcome = await page.hello("speaker", resume=resume)
        assert welcome["recovered"] and acked <= welcome["audio_ack"] <= half
        page.seq = max(0, acked - 10)
        await page.audio(*said[page.seq :])
        await page.until(lambda: "charlie" in " ".join(texts(page)))
        assert " ".join(texts(page)) == "alpha bravo charlie"


@pytest.mark.asyncio(loop_scope="module")
async def test_frames_left_out_become_silence(server: Server) -> None:
    async with client(server, "session=gap&speaker=anna") as page:
        await page.hello("speaker")
        await page.audio(*frames("alpha", pause_ms=0))
        page.seq += 40
        await page.audio(*frames("bravo"))
        await page.until(lambda: len(texts(page)) == 2)
        first, second = (event["data"] for event in page.events("final"))
        assert second["end_ms"] - first["end_ms"] >= 600 + 40 * 20 - 100


@pytest.mark.asyncio(loop_scope="module")
async def test_a_muted_speaker_is_not_heard(server: Server) -> None:
    async with client(server, "session=mute&speaker=anna") as page:
        await page.hello("speaker")
        assert (await page.command("m1", "mute"))["ok"]
        await page.audio(*frames("alpha"))
        assert (await page.command("m2", "mute", muted=False))["ok"]
        await page.audio(*frames("bravo"))
        await page.until(lambda: page.events("final"))
        assert texts(page) == ["bravo"]
        assert page.of("ack")[-1]["seq"] >= len(frames("alpha"))


@pytest.mark.asyncio(loop_scope="module")
async def test_who_leaves_gets_its_last_words(server: Server) -> None:
    async with client(server, "session=bye&speaker=anna") as page:
        await page.hello("speaker")
        await page.audio(*frames("golf hotel", pause_ms=0))
        await page.send("cmd", id="bye", op="leave")
        assert (await page.closed())[0] == 1000
        assert texts(page) == ["golf hotel"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_page_follows_a_bridges_meeting(server: Server) -> None:
    async with client(server, "session=meeting") as page:
        await page.hello()
        async with media_client(server, "sessionId=meeting&sendBack=true") as media:
            await media.say("0a1b-1", "echo foxtrot")
            await page.until(lambda: page.events("final"))
            assert page.events("final")[0]["data"]["speaker"] == "0a1b-1"
            assert texts(page) == ["echo foxtrot"]


async def test_another_worker_goes_on_and_the_older_connection_is_superseded() -> None:
    async with gateway(2, SESSION_RESUME_GRACE_PERIOD="5") as server:
        said = frames("alpha bravo", pause_ms=0)
        old = await SessionClient.open(server, "session=move&speaker=anna")
        await old.hello("speaker")
        await old.audio(*said)
        await old.until(lambda: old.of("ack"))
        for _ in range(6):
            # Whichever worker takes it: what was said before comes once, and the old one goes.
            new = await SessionClient.open(server, "session=move&speaker=anna")
            welcome = await new.hello("speaker", resume=resume_of(old, old.seq))
            assert welcome["recovered"]
            assert (await old.closed())[0] == 4009
            new.messages = old.messages + new.messages
            new.seq = old.seq
            old = new
        await old.audio(*frames("charlie"))
        await old.until(lambda: "charlie" in " ".join(texts(old)))
        assert " ".join(texts(old)).split() == ["alpha", "bravo", "charlie"]
        await old.leave()


async def test_where_nobody_is_waited_for_the_older_connection_is_superseded_all_the_same() -> None:
    async with gateway(2, SESSION_RESUME_ENABLED="false") as server:
        older = await SessionClient.open(server, "session=brief&speaker=anna")
        await older.hello("speaker")
        async with client(server, "session=brief") as listener:
            await listener.hello()
            await older.audio(*frames("alpha bravo", pause_ms=0))
            await older.until(lambda: older.of("ack"))
            for _ in range(6):
                newer = await SessionClient.open(server, "session=brief&speaker=anna")
                await newer.hello("speaker", resume=resume_of(older))
                assert (await older.closed())[0] == 4009
                older = newer
            await older.audio(*frames("charlie", pause_ms=0))
            await older.until(lambda: older.of("ack"))
            await older.lose()
            await listener.until(lambda: "charlie" in " ".join(texts(listener)), seconds=5)
            assert " ".join(texts(listener)) == "alpha bravo charlie"


async def test_who_comes_again_while_its_last_words_are_awaited_is_counted_right() -> None:
    """Its place is taken from a session that ends anyway: that ends once."""
    async with gateway(1, SESSION_RESUME_ENABLED="false") as server:
        for _ in range(4):
            async with client(server, "session=again&speaker=anna") as page:
                await page.hello("speaker")
                await page.audio(*frames("alpha", pause_ms=0))
                await page.until(lambda page=page: page.of("ack"))
                await page.lose()
        async with asyncio.timeout(10):
            while json.loads(server.get("/status").body)["tracks"]:
                await asyncio.sleep(0.05)
            while json.loads(server.get("/status").body)["detached"]:
                await asyncio.sleep(0.05)
        ended = _count(server, "otp_session_duration_seconds_count")
        assert ended == _count(server, "otp_session_starts_total") > 0


def _count(server: Server, name: str) -> float:
    lines = server.get("/metrics").body.decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


async def test_after_a_kill_the_page_sends_again_what_no_final_covers() -> None:
    # Turns end when they are told to: a page that is slow to kill finds no more of them.
    async with gateway(2, OPENAI_TURN_DETECTION="null") as server:
        said = frames("alpha bravo") + frames("charlie", pause_ms=0)
        page = await SessionClient.open(server, "session=kill&speaker=anna")
        await page.hello("speaker")
        await page.audio(*said[: len(frames("alpha bravo"))])
        await page.command("first", "end_turn")
        await page.until(lambda: page.events("final"))
        await page.audio(*frames("charlie", pause_ms=0))
        await page.until(lambda: page.of("ack") and page.of("ack")[-1]["seq"] >= 100)
        acked = page.of("ack")[-1]["seq"]
        for pid in server.workers():
            os.kill(pid, signal.SIGKILL)
        await page.closed()
        again = await _reconnected(server, "session=kill&speaker=anna")
        welcome = await again.hello("speaker", resume=resume_of(page, acked))
        assert welcome["recovered"]
        assert len(frames("alpha bravo", 0)) - 3 <= welcome["audio_ack"] < acked
        again.seq = welcome["audio_ack"]
        await again.audio(*(said + frames("delta"))[again.seq :])
        await again.command("second", "end_turn")
        await again.until(lambda: "delta" in " ".join(texts(again)))
        again.messages = page.messages + again.messages
        heard = " ".join(texts(again)).split()
        assert heard == ["alpha", "bravo", "charlie", "delta"]
        await again.leave()


async def _reconnected(server: Server, query: str) -> SessionClient:
    async with asyncio.timeout(10):
        while True:
            try:
                return await SessionClient.open(server, query)
            except OSError:
                await asyncio.sleep(0.05)


async def test_a_stop_says_drain_finishes_what_was_said_and_closes_with_1012() -> None:
    async with gateway(1) as server:
        async with (
            client(server, "session=stop&speaker=anna") as anna,
            client(server, "session=stop") as listener,
        ):
            await anna.hello("speaker")
            await listener.hello()
            await anna.audio(*frames("india hotel", pause_ms=0))
            await anna.until(lambda: anna.of("ack"))
            server.send_signal(signal.SIGTERM)
            assert (await anna.closed())[0] == (await listener.closed())[0] == 1012
            for page in (anna, listener):
                drain = page.of("drain")[0]
                assert 100 <= drain["retry_in_ms"] <= 2000 and drain["deadline_ms"] > 0
                assert texts(page) == ["india hotel"], json.dumps(page.messages[-3:])
        assert await asyncio.to_thread(server.wait) == 0


async def test_an_admin_commands_a_speaker_on_whichever_worker() -> None:
    async with (
        gateway(2, EDGESCRIBE_SESSION_ADMINS="true", OPENAI_TURN_DETECTION="null") as server,
        client(server, "session=far&speaker=anna") as anna,
    ):
        await anna.hello("speaker")
        await anna.audio(*frames("alpha", pause_ms=0))
        await anna.until(lambda: anna.of("ack"))
        for number in range(4):
            # Connections spread over both workers; the answer to the same id is the same.
            async with client(server, "session=far") as admin:
                await admin.hello("admin")
                asked = await admin.command("once", "end_turn", speaker="anna")
                assert asked == {"type": "res", "id": "once", "ok": True}
                muted = await admin.command(f"m{number}", "mute", speaker="anna")
                assert muted["ok"]
                nobody = await admin.command(f"n{number}", "history", after=0)
                assert nobody["ok"]
        await anna.until(lambda: texts(anna) == ["alpha"])
