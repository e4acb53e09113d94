"""A page's end of the plain socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.asr.support.tones import sentence
from tests.support.server import Server

RATE_HZ = 16000
FRAME_BYTES = 256
"""What a browser's AudioWorklet gives at once: 128 samples."""
Message = dict[str, Any]


class Page:
    """One connection; everything received is kept in ``messages``, and as it came in ``raw``."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.raw: list[str] = []
        self.messages: list[Message] = []
        self.close: tuple[int, str] | None = None
        self._changed = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    async def say(self, words: str, pause_ms: int = 600, size: int = FRAME_BYTES) -> None:
        """Send the words' tones at once, then a pause, in frames of ``size`` bytes."""
        await self.send(sentence(words, RATE_HZ) + bytes(RATE_HZ * 2 * pause_ms // 1000), size)

    async def send(self, pcm: bytes, size: int = FRAME_BYTES) -> None:
        for at in range(0, len(pcm), size):
            await self.socket.send(pcm[at : at + size])

    def turns(self, event: str | None = None) -> list[Message]:
        """TurnInfo messages, of one event if given."""
        turns = [message for message in self.messages if message["type"] == "TurnInfo"]
        return [turn for turn in turns if event in (None, turn["event"])]

    @property
    def texts(self) -> list[str]:
        """What a page shows that reads ``message.text``."""
        return [message["text"] for message in self.messages if message.get("text")]

    async def until(self, condition: Callable[[], object], seconds: float = 15.0) -> None:
        """Wait until the condition holds; it is looked at after each message."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def until_text(self, text: str) -> None:
        """Wait until the finished texts together end with this."""
        await self.until(lambda: " ".join(self.texts).endswith(text))

    async def closed(self, seconds: float = 15.0) -> tuple[int, str]:
        """The close code and reason, once the connection is closed."""
        await self.until(lambda: self.close is not None, seconds)
        assert self.close is not None
        return self.close

    async def leave(self, code: int = 1000) -> None:
        await self.socket.close(code)
        await self._reader

    async def vanish(self) -> None:
        """Lose the connection without a close frame."""
        self.socket.transport.abort()
        await self._reader

    async def _read(self) -> None:
        try:
            while True:
                text = await self.socket.recv()
                assert isinstance(text, str), "a page is sent texts only"
                self.raw.append(text)
                self.messages.append(json.loads(text))
                self._changed.set()
        except ConnectionClosed as closed:
            frame = closed.rcvd
            self.close = (frame.code, frame.reason) if frame else (1006, "")
            self._changed.set()


@asynccontextmanager
async def page(server: Server, query: str = "", path: str = "/listen") -> AsyncIterator[Page]:
    """A connection as a browser opens it; it is closed at the end of the block."""
    url = f"ws://{server.address}{path}" + (f"?{query}" if query else "")
    async with connect(url, origin="https://page.example") as socket:  # type: ignore[arg-type]
        client = Page(socket)
        yield client
        await client.leave()
