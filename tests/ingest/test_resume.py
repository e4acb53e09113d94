"""A media server that loses its connection and comes back, through a running gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from random import Random

import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from tests.asr.fakes.openai_endpoint import FakeOpenAI
from tests.asr.support.tones import packets, sentence, words_in
from tests.ingest.support.media import MediaClient, client, gateway, media_event, start_event
from tests.support.server import Server, wait_until

GRACE = {"SESSION_RESUME_GRACE_PERIOD": "5"}
REATTACHED = "otp_session_reattachments_total"
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
    await media.lose()


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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[tuple[Server, FakeOpenAI]]:
    """One gateway for all tests that leave no session behind."""
    settings = {
        "EDGESCRIBE_IDLE_FILL_AFTER_MS": "5000",
        "EDGESCRIBE_MAX_TAGS": "1",
        "OPENAI_TURN_DETECTION": "null",
    }
    async with gateway(FakeOpenAI(), **GRACE, **settings) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hasty() -> AsyncIterator[tuple[Server, FakeOpenAI]]:
    """A gateway that waits half a second for a client."""
    async with gateway(FakeOpenAI(), **SHORT_GRACE) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def small() -> AsyncIterator[tuple[Server, FakeOpenAI]]:
    """A gateway for one session, which keeps three finals; nothing is final until 3 s of quiet."""
    settings = {
        "EDGESCRIBE_MISSED_FINALS": "3",
        "EDGESCRIBE_MAX_SESSIONS": "1",
        "EDGESCRIBE_IDLE_FILL_AFTER_MS": "5000",
        "FORCE_COMMIT_TIMEOUT": "3",
        "SESSION_RESUME_GRACE_PERIOD": "20",
    }
    async with gateway(FakeOpenAI(), **settings) as running:
        yield running


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def end(media: MediaClient) -> None:
    """End the session, so that nothing of it is left."""
    await media.send('{"event":"session-end"}')
    assert await media.closed() == (1000, "Session ended")


@pytest.mark.parametrize("code", [None, 1000, 1001])
async def test_a_drop_in_mid_word_costs_nothing_and_the_recognizer_connection_goes_on(
    shared: tuple[Server, FakeOpenAI], code: int | None
) -> None:
    """The bridge counts numbers and times from zero again; only session-end ends a session."""
    server, endpoint = shared
    session = f"m1-{code}"
    connections = len(endpoint.connections)
    spoken = packets(sentence("alpha bravo charlie delta", 48000) + bytes(96 * 600))
    cut = 25  # the rest of alpha, 100 ms, is too short to be a word
    async with joined(server, session) as first:
        await first.send(start_event("a"))
        for number, packet in enumerate(spoken[:cut]):
            await first.send(media_event("a", 40_000 + number, packet, timestamp=number * 960))
        await soon(lambda: sum(e.audio_ms for e in endpoint.connections[connections:]), "heard")
        await (drop(first) if code is None else first.leave(code))
    await until(server, (0, 1, 1))
    returns = await asyncio.to_thread(counted, server, REATTACHED)
    async with joined(server, session, "sendBackInterim=true&provider=nobody") as media:
        await media.until(lambda: media.of("info"))
        info = media.of("info")[0]
        assert (info["sessionId"], info["config"]["sessionResumeEnabled"]) == (session, True)
        for number, packet in enumerate(spoken[cut:]):
            await media.send(media_event("a", number, packet, timestamp=number * 960))
        assert await asyncio.to_thread(status, server) == (1, 0, 1)
        await end(media)
        assert f"{first.text('a')} {media.text('a')}".strip() == "alpha bravo charlie delta"
        assert not media.interims(), "the parameters are those of the first connection"
        starts_ms = [final["start_ms"] for final in media.finals("a")]
        assert starts_ms == sorted(starts_ms) and 400 <= starts_ms[-1] < 5000
    assert len(endpoint.connections) == connections + 1
    await soon(lambda: counted(server, REATTACHED) == returns + 1, "the return is counted")


async def test_twenty_drops_at_random_moments_leave_the_audio_without_a_seam(
    shared: tuple[Server, FakeOpenAI],
) -> None:
    """A sender that kept its packets while it was away goes on with the next one."""
    server, endpoint = shared
    connections = len(endpoint.connections)
    words = "alpha bravo charlie delta echo foxtrot golf hotel india"
    spoken = packets(sentence(words, 48000))
    cuts = sorted(Random(7).sample(range(1, len(spoken)), 20))
    for start, stop in pairwise([0, *cuts, len(spoken)]):
        async with joined(server, "m2") as media:
            for number in range(start, stop):
                packet = media_event("a", number, spoken[number])
                await media.send(packet)
            await media.send('{"event":"ping","id":1}')
            await media.until(lambda media=media: media.of("pong"))
            if stop == len(spoken):
                await end(media)
    (heard,) = endpoint.connections[connections:]
    assert words_in(bytes(heard.audio), 24000) == words
    assert heard.audio_ms == pytest.approx(len(spoken) * 20, abs=100)


async def test_finals_that_were_missed_come_first_the_oldest_first(
    small: tuple[Server, FakeOpenAI],
) -> None:
    server, endpoint = small
    received = 'otp_transcriptions_received_total{is_interim="false"'
    delivered = "otp_transcriptions_delivered_total"
    before = await asyncio.to_thread(
        lambda: (counted(server, received), counted(server, delivered))
    )
    connections = len(endpoint.connections)
    async with joined(server, "m1") as media:
        for tag, word in zip("abcd", ("alpha", "bravo", "charlie", "delta"), strict=True):
            await media.say(tag, word, pause_ms=0)
        await soon(
            lambda: sum(e.audio_ms > 500 for e in endpoint.connections[connections:]) == 4, "heard"
        )
        await drop(media)
    await soon(lambda: counted(server, received) == before[0] + 4, "four finals")
    async with joined(server, "m1") as media:
        await media.say("a", "hotel")
        await media.until(lambda: "hotel" in media.text("a"))
        texts = [final["transcript"][0]["text"] for final in media.finals()]
        assert media.messages[0]["event"] == "info"
        assert len(texts) == 4 and texts[-1] == "hotel"
        assert set(texts[:3]) < {"alpha", "bravo", "charlie", "delta"}
        stamps = [final["timestamp"] for final in media.finals()]
        assert stamps[-1] == max(stamps), "tags that speak at once may change places"
        await end(media)
    await soon(lambda: counted(server, delivered) == before[1] + 4, "four delivered")


async def test_a_newer_connection_takes_the_session_and_the_older_is_told(
    shared: tuple[Server, FakeOpenAI],
) -> None:
    server, endpoint = shared
    connections = len(endpoint.connections)
    async with joined(server, "m3") as older:
        await older.say("a", "alpha", pause_ms=0)
        await soon(lambda: len(endpoint.connections) > connections, "a recognizer connection")
        async with joined(server, "m3") as newer:
            reason = "Superseded by a newer connection of this session"
            assert await older.closed() == (4009, reason)
            await newer.say("a", "bravo", pause_ms=0)
            assert await asyncio.to_thread(status, server) == (1, 0, 1)
            await end(newer)
            assert newer.text("a") == "alpha bravo"
            assert not older.finals()
    assert len(endpoint.connections) == connections + 1


async def test_two_bridges_with_one_id_do_not_evict_each_other_for_ever(
    hasty: tuple[Server, FakeOpenAI],
) -> None:
    server, endpoint = hasty
    connections = len(endpoint.connections)
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
        assert len(endpoint.connections) == connections + 3
        assert await asyncio.to_thread(status, server) == (1, 0, 3)
        await drop(five)
        await until(server, (1, 0, 1))
        await four.say("a", "delta")
        await four.until(lambda: "delta" in four.text("a"))
    await until(server, (0, 0, 0))


async def test_after_the_grace_period_the_tail_is_flushed_and_the_next_one_begins_anew(
    hasty: tuple[Server, FakeOpenAI],
) -> None:
    server, endpoint = hasty
    connections = len(endpoint.connections)
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
    assert len(endpoint.connections) == connections + 2


async def test_session_end_is_final_whoever_closes_first(
    shared: tuple[Server, FakeOpenAI],
) -> None:
    server, endpoint = shared
    connections = len(endpoint.connections)
    async with joined(server, "m4") as media:
        await media.say("a", "alpha", pause_ms=0)
        await media.send('{"event":"session-end"}')
        await media.leave(1001)
    await until(server, (0, 0, 0), within_s=4.0)
    async with joined(server, "m4") as media:
        await media.say("a", "bravo", pause_ms=0)
        await end(media)
        assert media.text("a") == "bravo"
    assert len(endpoint.connections) == connections + 2
    assert "did not come back" not in server.log


async def test_without_an_id_nothing_is_kept(shared: tuple[Server, FakeOpenAI]) -> None:
    server, _ = shared
    async with client(server, "sendBack=true") as media:
        await media.say("a", "alpha", pause_ms=0)
    await until(server, (0, 0, 0), within_s=4.0)


async def test_where_it_is_switched_off_nothing_is_kept() -> None:
    async with gateway(FakeOpenAI(), SESSION_RESUME_ENABLED="false", **GRACE) as (server, _):
        async with joined(server, "m1") as one, joined(server, "m1") as two:
            await two.until(lambda: two.of("info"))
            assert two.of("info")[0]["config"]["sessionResumeEnabled"] is False
            assert await asyncio.to_thread(status, server) == (2, 0, 0)
            assert one.close is None
            await one.say("a", "alpha", pause_ms=0)
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


async def test_sessions_without_a_client_take_room_and_a_return_takes_none(
    small: tuple[Server, FakeOpenAI],
) -> None:
    server, _ = small
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
        await end(media)


async def test_tags_refused_before_a_loss_stay_refused_and_are_told_once(
    shared: tuple[Server, FakeOpenAI],
) -> None:
    server, _ = shared
    async with joined(server, "m1", "sendBack=true&errors=true") as media:
        await media.say("a", "alpha")
        await media.say("b", "bravo")
        await media.until(lambda: media.of("error"))
        await drop(media)
    async with joined(server, "m1") as media:
        await media.say("b", "bravo")
        await media.say("a", "charlie")
        await end(media)
        assert media.text("a") == "alpha charlie"
        assert not media.of("error") and not media.finals("b")


async def test_hundreds_of_drops_and_returns_leave_memory_and_tasks_as_they_were() -> None:
    spoken = packets(sentence("alpha", 48000) + bytes(96 * 40))

    async def round_trip(server: Server) -> None:
        async with joined(server, "m1") as media:
            for at, packet in enumerate(spoken[:3]):
                await media.send(media_event("a", at, packet))
            await media.until(lambda: media.of("info"))

    async with gateway(FakeOpenAI(), **GRACE) as (server, endpoint):
        for _ in range(50):
            await round_trip(server)
        (worker,) = await asyncio.to_thread(server.workers)
        before_kb, tasks = _resident_kb(worker), counted(server, "edgescribe_tasks")
        for _ in range(250):
            await round_trip(server)
        assert _resident_kb(worker) - before_kb < 3000
        await soon(lambda: counted(server, "edgescribe_tasks") <= tasks, "no task is left")
        assert len(endpoint.connections) == 1


def _resident_kb(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
