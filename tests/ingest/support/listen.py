"""A page's end of the plain socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.asyncio.client import ClientConnection, connect

from tests.asr.support.tones import sentence
from tests.ingest.support.connection import Connection, Message
from tests.support.server import Server

RATE_HZ = 16000
FRAME_BYTES = 256
"""What a browser's AudioWorklet gives at once: 128 samples."""


class Page(Connection):
    """One connection; everything received is kept in ``messages``, and as it came in ``raw``."""

    def __init__(self, socket: ClientConnection) -> None:
        super().__init__(socket)
        self.raw: list[str] = []

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

    async def until_text(self, text: str) -> None:
        """Wait until the finished texts together end with this."""
        await self.until(lambda: " ".join(self.texts).endswith(text))

    def take(self, data: str | bytes) -> None:
        assert isinstance(data, str), "a page is sent texts only"
        self.raw.append(data)
        super().take(data)


@asynccontextmanager
async def page(server: Server, query: str = "", path: str = "/listen") -> AsyncIterator[Page]:
    """A connection as a browser opens it; it is closed at the end of the block."""
    url = f"ws://{server.address}{path}" + (f"?{query}" if query else "")
    async with connect(url, origin="https://page.example") as socket:  # type: ignore[arg-type]
        client = Page(socket)
        yield client
        await client.leave()
