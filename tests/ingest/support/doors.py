"""What tests of the doors need: real speech in the forms that clients send, a call, a gateway."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import struct
import time
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from _native.ogg import Muxer
from _native.resample import Resampler
from edge.demo.wer import compare
from edge.ingest.g711 import from_mulaw
from tests.ingest.support.connection import Connection, Message
from tests.support.containers import webm
from tests.support.server import Server
from tests.support.speech import speech_packets, two_cities_pcm

SECONDS = 8.6
SAID = (
    "It was the best of times, it was the worst of times, "
    "it was the age of wisdom, it was the age of foolishness,"
)
"""What is read in so many seconds."""
ENVIRONMENT = {
    "PROVIDERS_PRIORITY": "embedded",
    "EDGESCRIBE_FRONT_DOORS": "openai,deepgram,twilio",
    "SESSION_RESUME_GRACE_PERIOD": "3",
}


@cache
def speech(rate_hz: int) -> bytes:
    """The reading, s16le mono."""
    pcm = two_cities_pcm()[: round(SECONDS * 48000) * 2]
    resampler = Resampler(48000, rate_hz)
    return resampler.process(pcm) + resampler.flush()


@cache
def mulaw() -> bytes:
    """The reading as mu-law at 8 kHz: the code whose value is nearest."""
    values = struct.unpack("<256h", from_mulaw(bytes(range(256))))
    nearest = bytes(
        min(range(256), key=lambda code: abs(values[code] - level))
        for level in range(-32768, 32768, 64)
    )
    samples = struct.unpack(f"<{len(speech(8000)) // 2}h", speech(8000))
    return bytes(nearest[(sample + 32768) >> 6] for sample in samples)


@cache
def wav(rate_hz: int = 16000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate_hz)
        writer.writeframes(speech(rate_hz))
    return file.getvalue()


@cache
def ogg_opus() -> bytes:
    muxer = Muxer(7, pre_skip=312)
    return muxer.headers() + muxer.pages(speech_packets(int(SECONDS * 50)))


@cache
def webm_opus() -> bytes:
    return webm(speech_packets(int(SECONDS * 50)))


def errors(heard: str) -> float:
    """The word error rate of what was heard of the reading."""
    return compare(SAID, heard).rate


def call(sid: str, *, track: str = "inbound", **parameters: str) -> list[str]:
    """A call's messages as Twilio sends them: one side speaks, the other is quiet."""
    media_format = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
    start = {
        "accountSid": "AC0",
        "streamSid": "MZ0",
        "callSid": sid,
        "tracks": ["inbound", "outbound"],
        "mediaFormat": media_format,
        "customParameters": parameters,
    }
    messages = [
        {"event": "connected", "protocol": "Call", "version": "1.0.0"},
        {"event": "start", "sequenceNumber": "1", "start": start, "streamSid": "MZ0"},
    ]
    codes = mulaw()
    for number, at in enumerate(range(0, len(codes), 160)):
        for side in ("inbound", "outbound"):
            payload = codes[at : at + 160] if side == track else b"\xff" * 160
            media = {
                "track": side,
                "chunk": str(number + 1),
                "timestamp": str(20 * number + 5 + number % 7),
                "payload": base64.b64encode(payload).decode(),
            }
            messages.append({"event": "media", "media": media, "streamSid": "MZ0"})
    stop = {"accountSid": "AC0", "callSid": sid}
    messages.append({"event": "stop", "stop": stop, "streamSid": "MZ0"})
    return [json.dumps(message) for message in messages]


def form(file: bytes, session: bytes = b"") -> bytes:
    """What asks for a file's text; the boundary is b."""
    fields = (b"model", b"whisper-1"), (b"session", session), (b"file", file)
    parts = (
        b'--b\r\nContent-Disposition: form-data; name="' + name + b'"\r\n\r\n' + content + b"\r\n"
        for name, content in fields
    )
    return b"".join((*parts, b"--b--\r\n"))


def wide_wav(samples: bytes) -> bytes:
    """Eight channels at 48 kHz."""
    announced = struct.pack("<HHIIHH", 1, 8, 48000, 0, 16, 16)
    size = len(samples).to_bytes(4, "little")
    return b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + announced + b"data" + size + samples


class Client(Connection):
    """One connection at a door."""

    async def send(self, type: str, **members: object) -> None:
        await self.socket.send(json.dumps({"type": type, **members}))

    async def audio(self, data: bytes, size: int = 8192) -> None:
        for at in range(0, len(data), size):
            await self.socket.send(data[at : at + size])

    def of(self, type: str) -> list[Message]:
        return [message for message in self.messages if message["type"] == type]

    @property
    def finals(self) -> str:
        """What Deepgram's results say."""
        results = [one for one in self.of("Results") if one["is_final"]]
        return " ".join(one["channel"]["alternatives"][0]["transcript"] for one in results)

    @property
    def errors(self) -> list[Message]:
        """What OpenAI's errors say."""
        return [event["error"] for event in self.of("error")]


@asynccontextmanager
async def client(server: Server, target: str, *subprotocols: str) -> AsyncIterator[Client]:
    offered = [Subprotocol(name) for name in subprotocols]
    url = f"ws://{server.address}{target}"
    async with connect(url, subprotocols=offered or None, max_size=None) as socket:
        assert isinstance(socket, ClientConnection)
        yield Client(socket)


def text_of(server: Server, session: str) -> str:
    """The words in a session's log by now."""
    log = json.loads(server.get(f"/v1/sessions/{session}/export").body)
    finals = [one for one in log.get("entries", ()) if one["kind"] == "final"]
    return " ".join(final["entry"]["text"] for final in finals)


async def until_said(server: Server, session: str, most_errors: float = 0.25) -> None:
    """Wait until the reading is in a session's log, but for so many of its words."""
    until_s = time.monotonic() + 10
    while errors(text := await asyncio.to_thread(text_of, server, session)) > most_errors:
        assert time.monotonic() < until_s, text
        await asyncio.sleep(0.05)
