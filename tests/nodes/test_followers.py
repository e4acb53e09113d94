"""A room of hundreds that all lose their connection in one moment."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect

from edge.session.store.interface import Draft
from edge.session.store.opening import open_store
from tests.nodes.support.clients import SUBPROTOCOL
from tests.support.server import QUIET_RECOGNIZER, Server, running

FOLLOWERS = 500
MISSED = 20
WITHIN_S = 2.0


async def follow(server: Server, resume: dict[str, object] | None = None) -> ClientConnection:
    socket = await connect(
        f"ws://{server.address}/listen?session=room",
        subprotocols=[SUBPROTOCOL],
        compression=None,
        open_timeout=20,
        ping_interval=None,
        proxy=None,
    )
    hello: dict[str, object] = {"type": "hello"} | ({"resume": resume} if resume else {})
    await socket.send(json.dumps(hello))
    return socket


async def test_five_hundred_followers_are_back_within_two_seconds(tmp_path: Path) -> None:
    """Each is recovered and gets what it missed, without a gap."""
    store = str(tmp_path / "sessions.db")
    settings = {**QUIET_RECOGNIZER, "EDGESCRIBE_STORE": store}
    async with open_store(store) as writer:
        await writer.note("room", [Draft("event", b'{"type":"note","code":"a","text":"b"}')])
        with running("--workers", "2", environment=settings) as server:
            sockets = [await follow(server) for _ in range(FOLLOWERS)]
            welcomes = [json.loads(await socket.recv()) for socket in sockets]
            places = [{"epoch": each["epoch"], "offset": each["offset"]} for each in welcomes]
            for socket in sockets:
                socket.transport.abort()
            for _ in range(MISSED):
                await writer.note(
                    "room", [Draft("event", b'{"type":"note","code":"a","text":"b"}')]
                )
            began_s = time.monotonic()
            took_s: list[float] = []

            async def again(place: dict[str, object]) -> tuple[bool, list[int]]:
                socket = await follow(server, place)
                welcome = json.loads(await socket.recv())
                took_s.append(time.monotonic() - began_s)
                offsets = [json.loads(await socket.recv())["o"] for _ in range(MISSED)]
                socket.transport.abort()
                return welcome["recovered"], offsets

            outcomes = await asyncio.gather(*map(again, places))
    for place, (recovered, offsets) in zip(places, outcomes, strict=True):
        first = int(str(place["offset"])) + 1
        assert recovered and offsets == list(range(first, first + MISSED))
    assert max(took_s) < WITHIN_S, "the client's own time is part of it"
