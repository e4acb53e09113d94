"""A media server's connection, word for word: builds events, collects what comes back."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import numpy as np
from websockets.asyncio.client import ClientConnection, connect

from tests.asr.fakes.openai_endpoint import KEY, FakeOpenAI
from tests.asr.support.tones import packets, sentence
from tests.ingest.support.connection import Connection
from tests.ingest.support.connection import Message as Result
from tests.support.server import Server, running


def openai_environment(endpoint: FakeOpenAI, **changes: str) -> dict[str, str]:
    """Settings of a gateway whose only recognizer is ``endpoint``."""
    return {
        "OPENAI_API_KEY": KEY,
        "OPENAI_REALTIME_URL": endpoint.url,
        "PROVIDERS_PRIORITY": "openai",
        **changes,
    }


@asynccontextmanager
async def gateway(
    endpoint: FakeOpenAI, **environment: str
) -> AsyncIterator[tuple[Server, FakeOpenAI]]:
    """One worker in front of ``endpoint``."""
    async with endpoint:
        settings = openai_environment(endpoint, **environment)
        with running("--workers", "1", environment=settings) as server:
            yield server, endpoint


def media_event(tag: str, number: int, packet: bytes, **members: object) -> str:
    """One packet as the bridge sends it: numbers as strings, ``event`` twice."""
    media = {
        "tag": tag,
        "chunk": str(number),
        "timestamp": str(number * 960),
        "payload": base64.b64encode(packet).decode(),
        **members,
    }
    body = json.dumps({"event": "media", "sequenceNumber": str(number + 1), "media": media})
    return body[:-1] + ', "event": "media"}'


def start_event(tag: str, **media_format: object) -> str:
    """A ``start`` announcing Opus unless told otherwise."""
    announced = {"encoding": "opus", "sampleRate": 48000, "channels": 2, **media_format}
    return json.dumps({"event": "start", "start": {"tag": tag, "mediaFormat": announced}})


def l16_packets(pcm: bytes, rate_hz: int, channels: int, encoding: str) -> list[bytes]:
    """S16le mono audio as packets of about 20 ms, the same in every channel."""
    kind = ">i2" if encoding.lower() == "l16-be" else "<i2"
    samples = np.repeat(np.frombuffer(pcm, "<i2"), channels).astype(kind)
    size = rate_hz // 50 * channels
    return [samples[at : at + size].tobytes() for at in range(0, samples.size, size)]


class MediaClient(Connection):
    """One connection; everything received is kept in ``messages``."""

    def __init__(self, socket: ClientConnection) -> None:
        super().__init__(socket)
        self._numbers: dict[str, int] = {}

    async def send(self, message: str | bytes) -> None:
        await self.socket.send(message)

    async def say(self, tag: str, words: str, pause_ms: int = 600) -> None:
        """Send the words' tones at once, then a pause of silence packets."""
        await self.send_packets(tag, packets(sentence(words, 48000) + bytes(96 * pause_ms)))

    async def send_packets(self, tag: str, opus: list[bytes]) -> None:
        first = self._numbers.get(tag, 100)
        for number, packet in enumerate(opus, first):
            await self.send(media_event(tag, number, packet))
        self._numbers[tag] = first + len(opus)

    def of(self, event: str, tag: str | None = None) -> list[Result]:
        """Messages of one kind, of one tag if given."""
        found = [message for message in self.messages if message.get("event") == event]
        if tag is None:
            return found
        return [m for m in found if tag in (m.get("tag"), m.get("participant", {}).get("tag"))]

    def finals(self, tag: str | None = None) -> list[Result]:
        return [m for m in self.of("transcription-result", tag) if not m["is_interim"]]

    def interims(self, tag: str | None = None) -> list[Result]:
        return [m for m in self.of("transcription-result", tag) if m["is_interim"]]

    def text(self, tag: str) -> str:
        """All finals of a tag, joined."""
        return " ".join(m["transcript"][0]["text"] for m in self.finals(tag))


@asynccontextmanager
async def client(
    server: Server, query: str = "sendBack=true", headers: Mapping[str, str] | None = None
) -> AsyncIterator[MediaClient]:
    """A connection to /transcribe; it is closed at the end of the block."""
    address = f"ws://{server.address}/transcribe?{query}"
    async with connect(address, compression=None, additional_headers=headers) as socket:
        media = MediaClient(socket)
        yield media
        await media.leave()
