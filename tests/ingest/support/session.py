"""A client of edge.session.v1, and a gateway whose log the test can write beside it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from edge.ingest.session_audio import audio_frame
from edge.session.store.interface import Draft, Grant, SessionStore
from tests.ingest.support.connection import Connection
from tests.ingest.support.connection import Message as Message
from tests.support.server import Server

SUBPROTOCOL = Subprotocol("edge.session.v1")


class SessionClient(Connection):
    """One connection; everything received is kept in ``messages``."""

    def __init__(self, socket: ClientConnection) -> None:
        super().__init__(socket)
        self.seq = 0

    @classmethod
    async def open(cls, server: Server, query: str = "", **options: Any) -> Self:
        url = f"ws://{server.address}/listen?{query}"
        subprotocols = [SUBPROTOCOL]
        socket = await connect(
            url, subprotocols=subprotocols, compression=None, max_size=None, **options
        )
        assert socket.subprotocol == SUBPROTOCOL
        return cls(socket)

    async def send(self, type: str, **members: object) -> None:
        await self.socket.send(json.dumps({"type": type, **members}))

    async def hello(self, role: str = "listener", **members: object) -> Message:
        """Say hello and return the welcome."""
        await self.send("hello", role=role, **members)
        await self.until(lambda: self.of("welcome"))
        return self.of("welcome")[-1]

    async def command(self, id: str, op: str, **data: object) -> Message:
        """Have a command done and return its answer."""
        before = len(self.results(id))
        await self.send("cmd", id=id, op=op, data=data)
        await self.until(lambda: len(self.results(id)) > before)
        return self.results(id)[-1]

    def results(self, id: str) -> list[Message]:
        return [message for message in self.of("res") if message["id"] == id]

    async def audio(self, *payloads: bytes, ms: int = 20, stream: int = 0) -> None:
        """Send payloads of ``ms`` each, one frame after the other."""
        for payload in payloads:
            self.seq += 1
            await self.socket.send(audio_frame(self.seq, (self.seq - 1) * ms, payload, stream))

    def of(self, type: str) -> list[Message]:
        return [message for message in self.messages if message["type"] == type]

    @property
    def offsets(self) -> list[int]:
        return [message["o"] for message in self.of("ev")]

    def events(self, kind: str) -> list[Message]:
        return [message for message in self.of("ev") if message["k"] == kind]


@asynccontextmanager
async def client(server: Server, query: str = "", **options: Any) -> AsyncIterator[SessionClient]:
    """A connection to /listen that is closed at the end of the block."""
    opened = await SessionClient.open(server, query, **options)
    try:
        yield opened
    finally:
        await opened.leave()


def final(turn: int, text: str = "", speaker: str = "anna") -> Draft:
    """A final as the log keeps it."""
    body = {
        "type": "final",
        "speaker": speaker,
        "turn": turn,
        "text": text or f"sentence {turn}",
        "start_ms": 1000.0 * turn,
        "end_ms": 1000.0 * turn + 800,
        "item_id": str(turn),
        "provider": "test",
        "timestamp_unix_ms": 1,
        "sent": False,
    }
    return Draft("final", json.dumps(body).encode())


class Author:
    """Writes finals of one speaker into a session's log, as another worker's track would."""

    def __init__(self, store: SessionStore, grant: Grant) -> None:
        self._store = store
        self._grant = grant
        self.turn = 0

    @classmethod
    async def open(cls, store: SessionStore, session: str, speaker: str = "anna") -> Self:
        return cls(store, await store.open_track(session, speaker))

    async def say(self, count: int = 1, text: str = "") -> int:
        """Append so many finals; the offset of the last."""
        first, self.turn = self.turn + 1, self.turn + count
        drafts = [final(turn, text) for turn in range(first, self.turn + 1)]
        return await self._store.append(self._grant, drafts)
