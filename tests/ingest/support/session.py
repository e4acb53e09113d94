"""A client of edge.session.v1, and a gateway whose log the test can write beside it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from edge.ingest.session_audio import audio_frame
from edge.session.store.interface import Draft, Grant, SessionStore
from tests.support.server import Server

SUBPROTOCOL = Subprotocol("edge.session.v1")
Message = dict[str, Any]


class SessionClient:
    """One connection; everything received is kept in ``messages``."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.messages: list[Message] = []
        self.close: tuple[int, str] | None = None
        self.seq = 0
        self._changed = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

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

    async def until(self, condition: Callable[[], object], seconds: float = 15.0) -> None:
        """Wait until the condition holds; it is looked at after each message."""
        async with asyncio.timeout(seconds):
            while not condition():
                assert self.close is None, self.close
                self._changed.clear()
                await self._changed.wait()

    async def closed(self, seconds: float = 15.0) -> tuple[int, str]:
        """The close code and reason, once the gateway has closed."""
        async with asyncio.timeout(seconds):
            while self.close is None:
                self._changed.clear()
                await self._changed.wait()
        return self.close

    async def leave(self, code: int = 1000) -> None:
        await self.socket.close(code)
        await self._reader

    async def stop_reading(self) -> None:
        """Let what comes wait in the system's buffers."""
        self._reader.cancel()
        await asyncio.wait((self._reader,))

    def read_on(self) -> None:
        self._reader = asyncio.create_task(self._read())

    async def lose(self) -> None:
        """Break the connection without a close frame."""
        self.socket.transport.abort()
        await self._reader

    async def _read(self) -> None:
        try:
            while True:
                self.messages.append(json.loads(await self.socket.recv()))
                self._changed.set()
        except ConnectionClosed as closed:
            frame = closed.rcvd
            self.close = (frame.code, frame.reason) if frame else (1006, "")
            self._changed.set()


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
