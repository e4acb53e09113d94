"""A room of hundreds that all lose their connection in one moment."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect

from edge.session.entries import NoteEntry, encode_entry
from edge.session.store.interface import Draft
from edge.session.store.opening import open_store
from tests.ingest.support.session import SessionClient
from tests.nodes.support.clients import SUBPROTOCOL
from tests.support.server import QUIET_RECOGNIZER, Server, running

FOLLOWERS = 500
MISSED = 20
WITHIN_S = 2.0
NOTES = 500
NOTE = b'{"type":"note","code":"a","text":"b"}'


async def follow(server: Server, resume: dict[str, object] | None = None) -> ClientConnection:
    connection = await connect(
        f"ws://{server.address}/listen?session=room",
        subprotocols=[SUBPROTOCOL],
        compression=None,
        open_timeout=20,
        ping_interval=None,
        proxy=None,
    )
    hello: dict[str, object] = {"type": "hello"} | ({"resume": resume} if resume else {})
    await connection.send(json.dumps(hello))
    return connection


async def test_five_hundred_followers_are_back_within_two_seconds(tmp_path: Path) -> None:
    """Each is recovered and gets what it missed, without a gap."""
    store = str(tmp_path / "sessions.db")
    settings = {**QUIET_RECOGNIZER, "EDGESCRIBE_STORE": store}
    async with open_store(store) as writer:
        await writer.note("room", [Draft("event", NOTE)])
        with running("--workers", "2", environment=settings) as server:
            followers = [await follow(server) for _ in range(FOLLOWERS)]
            welcomes = [json.loads(await follower.recv()) for follower in followers]
            places = [{"epoch": each["epoch"], "offset": each["offset"]} for each in welcomes]
            for follower in followers:
                follower.transport.abort()
            for _ in range(MISSED):
                await writer.note("room", [Draft("event", NOTE)])
            began_s = time.monotonic()
            took_s: list[float] = []

            async def again(place: dict[str, object]) -> tuple[bool, list[int]]:
                follower = await follow(server, place)
                welcome = json.loads(await follower.recv())
                took_s.append(time.monotonic() - began_s)
                offsets = [json.loads(await follower.recv())["o"] for _ in range(MISSED)]
                follower.transport.abort()
                return welcome["recovered"], offsets

            outcomes = await asyncio.gather(*map(again, places))
    for place, (recovered, offsets) in zip(places, outcomes, strict=True):
        first = int(str(place["offset"])) + 1
        assert recovered and offsets == list(range(first, first + MISSED))
    assert max(took_s) < WITHIN_S, "the client's own time is part of it"


async def pings(speaker: SessionClient, count: int) -> float:
    """The 99th percentile of a speaker's way to its worker and back, in milliseconds."""
    took_ms = []
    for number in range(count):
        began_s = time.monotonic()
        await speaker.send("ping", id=number)
        await speaker.until(lambda number=number: len(speaker.of("pong")) > number)
        took_ms.append((time.monotonic() - began_s) * 1000)
        await asyncio.sleep(0.003)
    speaker.messages.clear()
    return sorted(took_ms)[int(0.99 * count)]


async def test_no_speaker_feels_a_follower_that_does_not_read(tmp_path: Path) -> None:
    """The follower has got everything in order when it is closed for being too slow."""
    store = str(tmp_path / "sessions.db")
    settings = {**QUIET_RECOGNIZER, "EDGESCRIBE_STORE": store}
    async with open_store(store) as writer:
        with running("--workers", "1", environment=settings) as server:
            narrow = socket.create_connection((server.host, server.port))
            narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
            speaker = await SessionClient.open(server, "session=room&speaker=anna")
            slow = await SessionClient.open(server, "session=room", sock=narrow)
            await speaker.hello("speaker")
            await slow.hello()
            quiet_ms = await pings(speaker, 100)
            await slow.stop_reading()

            async def talk() -> None:
                note = encode_entry(NoteEntry("long", "x" * 20_000))
                for _ in range(NOTES):
                    await writer.note("room", [Draft("event", note)])
                    await asyncio.sleep(0.003)

            talking = asyncio.create_task(talk())
            busy_ms = await pings(speaker, 100)
            await talking
            slow.read_on()
            assert (await slow.closed())[0] == 4008
            assert slow.offsets == list(range(slow.offsets[0], slow.offsets[0] + len(slow.offsets)))
            assert busy_ms < quiet_ms + 500, "waiting for the follower would take 5 s"
            await speaker.leave()
