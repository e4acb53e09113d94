"""Many who come at once to a session that nobody has heard of find one and the same."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect

from edge.ingest.session_audio import audio_frame
from edge.session.store.opening import open_store
from tests.nodes.support.checker import log_faults, log_of
from tests.nodes.support.clients import SUBPROTOCOL
from tests.support.server import QUIET_RECOGNIZER, Server, running

SPEAKERS = 100
LISTENERS = 100


async def come(server: Server, stack: AsyncExitStack, speaker: str) -> ClientConnection:
    url = f"ws://{server.address}/listen?session=first" + (f"&speaker={speaker}" if speaker else "")
    socket = await connect(
        url, subprotocols=[SUBPROTOCOL], compression=None, open_timeout=20, proxy=None
    )
    stack.callback(socket.transport.abort)
    return socket


async def greet(server: Server, stack: AsyncExitStack, number: int) -> str:
    """Connect and speak, or listen; the epoch of the welcome."""
    is_speaker = number < SPEAKERS
    socket = await come(server, stack, f"voice-{number}" if is_speaker else "")
    role = "speaker" if is_speaker else "listener"
    await socket.send(json.dumps({"type": "hello", "role": role}))
    while (message := json.loads(await socket.recv()))["type"] != "welcome":
        pass
    if is_speaker:
        await socket.send(audio_frame(1, 0, bytes(640)))
    return str(message["epoch"])


async def test_two_hundred_first_connections_make_one_session(tmp_path: Path) -> None:
    """Over four workers; offsets are dense, and each speaker has come once."""
    store = str(tmp_path / "sessions.db")
    settings = {**QUIET_RECOGNIZER, "EDGESCRIBE_STORE": store}
    with running("--workers", "4", environment=settings) as server:
        async with AsyncExitStack() as stack:
            everybody = range(SPEAKERS + LISTENERS)
            epochs = await asyncio.gather(*(greet(server, stack, each) for each in everybody))
            assert len(set(epochs)) == 1
            async with open_store(store) as opened, asyncio.timeout(15):
                joined: list[str] = []
                while len(joined) < SPEAKERS:
                    head, entries = await log_of(opened, "first")
                    bodies = [json.loads(entry.body) for entry in entries]
                    joined = [body["speaker"] for body in bodies if body["type"] == "join"]
                    await asyncio.sleep(0.05)
        assert head.epoch == epochs[0]
        assert not log_faults(head, entries)
        assert sorted(joined) == sorted(f"voice-{number}" for number in range(SPEAKERS))
        listed = json.loads(server.get("/v1/sessions").body)
        assert json.dumps(listed).count('"first"') == 1
