"""A media server that loses its connection and comes back, through a running gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import connect

from tests.asr.fakes.openai_endpoint import FakeOpenAI
from tests.asr.support.tones import packets, sentence
from tests.ingest.support.media import MediaClient, client, gateway, media_event, start_event
from tests.support.server import Server, wait_until

GRACE = {"SESSION_RESUME_GRACE_PERIOD": "5"}
SHORT_GRACE = {"SESSION_RESUME_GRACE_PERIOD": "0.5"}


@asynccontextmanager
async def joined(server: Server, session: str, query: str = "sendBack=true&times=true") -> (
    AsyncIterator[MediaClient]
):  # fmt: skip
    """A connection to a session; the test says how it ends."""
    address = f"ws://{server.address}/transcribe?sessionId={session}&{query}"
    async with connect(address, compression=None) as socket:
        yield MediaClient(socket)
        socket.transport.abort()


async def drop(media: MediaClient) -> None:
    """Lose the connection without a word."""
    media._socket.transport.abort()
    await media.closed()


def status(server: Server) -> tuple[int, int, int]:
    body = json.loads(server.get("/status").body)
    return body["active"], body["detached"], body["tracks"]


async def until(server: Server, wanted: tuple[int, int, int], within_s: float = 10.0) -> None:
    def reached() -> bool:
        return status(server) == wanted

    await asyncio.to_thread(wait_until, reached, f"active, detached, tracks {wanted}", within_s)


async def soon(condition: Callable[[], object], what: str) -> None:
    await asyncio.to_thread(wait_until, lambda: bool(condition()), what)


def counted(server: Server, name: str) -> float:
    lines = server.get("/metrics").body.decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


@pytest.mark.parametrize("code", [None, 1000, 1001])
async def test_a_drop_in_mid_word_costs_nothing_and_the_recognizer_connection_goes_on(
    code: int | None,
) -> None:
    """The bridge counts numbers and times from zero again; only session-end ends a session."""
    spoken = packets(sentence("alpha bravo charlie delta", 48000) + bytes(96 * 600))
    cut = 25  # the rest of alpha, 100 ms, is too short to be a word
    async with gateway(FakeOpenAI(), **GRACE) as (server, endpoint):
        async with joined(server, "m1") as media:
            first = media
            await media.send(start_event("a"))
            for number, packet in enumerate(spoken[:cut]):
                await media.send(media_event("a", 40_000 + number, packet, timestamp=number * 960))
            await soon(lambda: sum(e.audio_ms for e in endpoint.connections) >= 500, "all heard")
            await (drop(media) if code is None else media.leave(code))
        await until(server, (0, 1, 1))
        async with joined(server, "m1", "sendBackInterim=true&provider=nobody") as media:
            await media.until(lambda: media.of("info"))
            assert media.of("info")[0]["sessionId"] == "m1"
            assert media.of("info")[0]["config"]["sessionResumeEnabled"] is True
            for number, packet in enumerate(spoken[cut:]):
                await media.send(media_event("a", number, packet, timestamp=number * 960))
            await media.until(lambda: "delta" in media.text("a"))
            heard = f"{first.text('a')} {media.text('a')}".strip()
            assert heard == "alpha bravo charlie delta"
            assert not media.interims(), "the parameters are those of the first connection"
            starts_ms = [final["start_ms"] for final in media.finals("a")]
            assert starts_ms == sorted(starts_ms) and starts_ms[-1] >= 400
            assert status(server) == (1, 0, 1)
        assert len(endpoint.connections) == 1
        name = "otp_session_reattachments_total"
        await soon(lambda: counted(server, name) == 1, "the return is counted")


async def test_finals_that_were_missed_come_first_the_oldest_first() -> None:
    async with gateway(FakeOpenAI(), EDGESCRIBE_MISSED_FINALS="3", **GRACE) as (server, endpoint):
        async with joined(server, "m1") as media:
            for tag, word in zip("abcd", ("alpha", "bravo", "charlie", "delta"), strict=True):
                await media.say(tag, word, pause_ms=0)
            await soon(lambda: sum(e.audio_ms > 500 for e in endpoint.connections) == 4, "heard")
            await drop(media)
        name = "otp_transcriptions_received_total"
        await soon(lambda: counted(server, f'{name}{{is_interim="false"') == 4, "four finals")
        async with joined(server, "m1") as media:
            await media.say("a", "hotel")
            await media.until(lambda: "hotel" in media.text("a"))
            texts = [final["transcript"][0]["text"] for final in media.finals()]
            assert media.messages[0]["event"] == "info"
            assert len(texts) == 4 and texts[-1] == "hotel"
            assert set(texts[:3]) < {"alpha", "bravo", "charlie", "delta"}
            stamps = [final["timestamp"] for final in media.finals()]
            assert stamps == sorted(stamps)
        await soon(
            lambda: counted(server, "otp_transcriptions_delivered_total") == 4, "four delivered"
        )


async def test_a_newer_connection_takes_the_session_and_the_older_is_told() -> None:
    async with (
        gateway(FakeOpenAI(), **GRACE) as (server, endpoint),
        joined(server, "m1") as older,
    ):
        await older.say("a", "alpha")
        await older.until(older.finals)
        async with joined(server, "m1") as newer:
            assert await older.closed() == (
                4009,
                "Superseded by a newer connection of this session",
            )
            await newer.say("a", "bravo")
            await newer.until(newer.finals)
            assert newer.text("a") == "bravo"
            assert (len(endpoint.connections), status(server)) == (1, (1, 0, 1))


async def test_two_bridges_with_one_id_do_not_evict_each_other_for_ever() -> None:
    async with gateway(FakeOpenAI(), **SHORT_GRACE) as (server, endpoint):
        async with (
            joined(server, "m1") as one, joined(server, "m1") as two,
            joined(server, "m1") as three, joined(server, "m1") as four,
            joined(server, "m1") as five,
        ):  # fmt: skip
            for evicted in (one, two, three):
                assert (await evicted.closed())[0] == 4009
            await asyncio.gather(
                four.say("a", "alpha bravo"), five.say("a", "golf"), five.say("b", "hotel")
            )
            await four.until(four.finals)
            await five.until(lambda: len(five.finals()) == 2)
            assert (four.text("a"), four.finals("b")) == ("alpha bravo", [])
            assert (five.text("a"), five.text("b")) == ("golf", "hotel")
            assert (len(endpoint.connections), status(server)) == (3, (1, 0, 3))
            await drop(five)
            await until(server, (1, 0, 1))
            await four.say("a", "delta")
            await four.until(lambda: "delta" in four.text("a"))
        await until(server, (0, 0, 0))


async def test_after_the_grace_period_the_tail_is_flushed_and_the_next_one_begins_anew() -> None:
    async with gateway(FakeOpenAI(), **SHORT_GRACE) as (server, endpoint):
        async with joined(server, "m1") as media:
            await media.say("a", "alpha")
            await media.until(media.finals)
            await drop(media)
        await until(server, (0, 1, 1))
        await until(server, (0, 0, 0))
        await soon(lambda: endpoint.open_connections == 0, "the recognizer is closed")
        async with joined(server, "m1") as media:
            await media.say("a", "bravo")
            await media.until(media.finals)
            assert media.text("a") == "bravo"
        assert len(endpoint.connections) == 2


async def test_session_end_is_final_whoever_closes_first() -> None:
    async with gateway(FakeOpenAI(), **GRACE) as (server, endpoint):
        async with joined(server, "m1") as media:
            await media.say("a", "alpha", pause_ms=0)
            await media.send('{"event":"session-end"}')
            await media.leave(1001)
        await until(server, (0, 0, 0), within_s=4.0)
        async with joined(server, "m1") as media:
            await media.say("a", "bravo")
            await media.send('{"event":"session-end"}')
            assert await media.closed() == (1000, "Session ended")
            assert media.text("a") == "bravo"
        assert len(endpoint.connections) == 2


@pytest.mark.parametrize(
    ("query", "settings"),
    [("sendBack=true", {}), ("sendBack=true&sessionId=m1", {"SESSION_RESUME_ENABLED": "false"})],
)
async def test_without_an_id_or_where_it_is_off_nothing_is_kept(
    query: str, settings: dict[str, str]
) -> None:
    async with gateway(FakeOpenAI(), **GRACE, **settings) as (server, _):
        async with client(server, query) as media:
            await media.say("a", "alpha", pause_ms=0)
        await until(server, (0, 0, 0), within_s=4.0)


async def test_a_stop_does_not_wait_for_clients_that_are_away() -> None:
    settings = {"SESSION_RESUME_GRACE_PERIOD": "600", "DUMP_TRANSCRIPTS": "true"}
    async with gateway(FakeOpenAI(), **settings) as (server, _):
        async with joined(server, "m1") as media:
            await media.say("a", "alpha", pause_ms=0)
            await drop(media)
        await until(server, (0, 1, 1))
        assert await asyncio.to_thread(server.stop) == 0
        assert "[error" not in server.log
        assert "alpha" in (server.data_dir / "dumps/m1/transcript.jsonl").read_text()


async def test_sessions_without_a_client_take_room_and_a_return_takes_none() -> None:
    async with gateway(FakeOpenAI(), EDGESCRIBE_MAX_SESSIONS="1", **GRACE) as (server, _):
        async with joined(server, "m1") as media:
            await media.say("a", "alpha", pause_ms=0)
            await drop(media)
        await until(server, (0, 1, 1))
        assert (await asyncio.to_thread(server.get, "/ready")).status == 503
        with pytest.raises(Exception, match="503"):
            async with joined(server, "m2"):
                pass
        async with joined(server, "m1") as media:
            await media.until(lambda: media.text("a") == "alpha")


async def test_a_tag_that_failed_while_its_client_was_away_is_told_on_return() -> None:
    endpoint = FakeOpenAI()
    settings = {"EDGESCRIBE_MAX_TAGS": "1"}
    async with gateway(endpoint, **settings, **GRACE) as (server, _):
        async with joined(server, "m1", "sendBack=true&errors=true") as media:
            await media.say("a", "alpha")
            await media.say("b", "bravo")
            await media.until(lambda: media.of("error"))
            await drop(media)
        async with joined(server, "m1") as media:
            await media.say("b", "bravo")
            await media.say("a", "charlie")
            await media.until(lambda: "charlie" in media.text("a"))
            assert not media.of("error") and not media.finals("b"), "refused before: told once"


async def test_hundreds_of_drops_and_returns_leave_memory_and_tasks_as_they_were() -> None:
    spoken = packets(sentence("alpha", 48000) + bytes(96 * 40))

    async def round_trip(server: Server, number: int) -> None:
        async with joined(server, "m1") as media:
            for at, packet in enumerate(spoken[:3]):
                await media.send(media_event("a", at, packet))
            await media.until(lambda: media.of("info"))

    async with gateway(FakeOpenAI(), **GRACE) as (server, endpoint):
        for number in range(50):
            await round_trip(server, number)
        (worker,) = await asyncio.to_thread(server.workers)
        before_kb, tasks = _resident_kb(worker), counted(server, "edgescribe_tasks")
        for number in range(450):
            await round_trip(server, number)
        assert _resident_kb(worker) - before_kb < 3000
        await soon(lambda: counted(server, "edgescribe_tasks") <= tasks, "no task is left")
        assert len(endpoint.connections) == 1


def _resident_kb(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
