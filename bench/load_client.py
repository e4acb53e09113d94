"""A bridge for many sessions that costs next to nothing: made frames, raw sockets, steady pace.

Frames are masked with the key 0, which leaves the payload as it is (legal, RFC 6455 section 5.3)
and costs the gateway what any key does. Each packet is a write of its own, as in a call; the
streams are spread evenly over the 20 ms.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import struct
import time
from collections.abc import Sequence
from typing import cast

import msgspec

FRAME_S = 0.020
CLOSE_WITHIN_S = 20.0
_TICK_S = 0.001
_STAMP = re.compile(rb"t(\d{9,})")


class Arrival(msgspec.Struct, frozen=True):
    """One result: when it came and how long after the upstream had sent it."""

    at_s: float
    delay_ms: float
    is_final: bool


class Session(asyncio.Protocol):
    """One connection with its tags."""

    def __init__(self, name: str, arrivals: list[Arrival], query: str) -> None:
        self._name = name
        self._arrivals = arrivals
        self._query = query
        self._received = bytearray()
        self._loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self.transport: asyncio.Transport | None = None
        self.sequence = 0
        self.is_leaving = False
        """Whether its end is its own doing."""
        self._upgraded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        key = base64.b64encode(os.urandom(16)).decode()
        self.transport.write(
            f"GET /transcribe?sessionId={self._name}&{self._query} HTTP/1.1\r\n"
            "Host: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        if not self.opened.done():
            self.opened.set_exception(ConnectionError("the gateway hung up during the upgrade"))
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        self._received += data
        if not self._upgraded:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            status = bytes(self._received[:12])
            if status != b"HTTP/1.1 101":
                self.opened.set_exception(ConnectionError(bytes(self._received).decode()))
                return
            del self._received[: end + 4]
            self._upgraded = True
            self.opened.set_result(None)
        while (frame := self._next_frame()) is not None:
            opcode, payload = frame
            if opcode == 9:
                self._write(0x8A, payload)
            elif opcode == 8:
                self._write(0x88, payload[:2])
            elif stamps := _STAMP.findall(payload):
                delay_ms = (now_ns - int(stamps[-1])) / 1e6
                is_final = b'"is_interim":false' in payload
                self._arrivals.append(Arrival(now_ns / 1e9, delay_ms, is_final))

    def _next_frame(self) -> tuple[int, bytes] | None:
        received = self._received
        if len(received) < 2:
            return None
        length, start = received[1] & 0x7F, 2
        if length == 126:
            if len(received) < 4:
                return None
            length, start = struct.unpack_from(">H", received, 2)[0], 4
        if len(received) < start + length:
            return None
        payload = bytes(received[start : start + length])
        opcode = received[0] & 0x0F
        del received[: start + length]
        return opcode, payload

    async def end(self) -> None:
        """Leave as a bridge does, with ``session-end``, and wait until the gateway has closed."""
        self.is_leaving = True
        self.send(b'{"event":"session-end","event":"session-end"}')
        await asyncio.wait([self.closed], timeout=CLOSE_WITHIN_S)
        self.drop()

    def drop(self) -> None:
        """Be gone without a word."""
        self.is_leaving = True
        if self.transport is not None:
            self.transport.abort()

    def send(self, text: bytes) -> None:
        """Send a text message."""
        self._write(0x81, text)

    def _write(self, first: int, payload: bytes) -> None:
        if self.transport is None:
            return
        size = len(payload)
        if size < 126:
            head = bytes((first, 0x80 | size))
        else:
            head = struct.pack(">BBH", first, 0x80 | 126, size)
        self.transport.write(head + b"\0\0\0\0" + payload)


class Stream:
    """One tag of a session, looping over the same packets from an offset of its own."""

    def __init__(self, session: Session, tag: str, payloads: Sequence[bytes], offset: int) -> None:
        self.session = session
        self._tag = tag.encode()
        self._payloads = payloads
        self._offset = offset
        self._chunk = 1000
        self.sent = 0

    def start(self) -> None:
        """Announce the tag."""
        self.session.sequence += 1
        self.session.send(
            b'{"event":"start","sequenceNumber":"%d","start":{"tag":"%b","mediaFormat":'
            b'{"encoding":"opus","sampleRate":48000,"channels":2}},"event":"start"}'
            % (self.session.sequence, self._tag)
        )

    def send(self) -> None:
        """Send the next packet."""
        session = self.session
        session.sequence += 1
        index = self.sent
        self.sent = index + 1
        session.send(
            b'{"event":"media","sequenceNumber":"%d","media":{"tag":"%b","chunk":"%d",'
            b'"timestamp":"%d","payload":"%b"},"event":"media"}'
            % (
                session.sequence,
                self._tag,
                self._chunk + index,
                index * 960,
                self._payloads[(self._offset + index) % len(self._payloads)],
            )
        )


class LoadClient:
    """The sessions and streams of a run; ``open``, then ``stream``, then ``close``."""

    def __init__(self, port: int, packets: Sequence[bytes]) -> None:
        self._port = port
        self._payloads = [base64.b64encode(packet) for packet in packets]
        self._sessions: list[Session] = []
        self.streams: list[Stream] = []
        """They send in turn; one may be put in another's place at any time."""
        self.arrivals: list[Arrival] = []
        self.sent = 0
        """Packets."""
        self.latest_ms = 0.0
        """How far the client itself has been behind its pace."""

    async def open(self, *, sessions: int, tags: int, query: str) -> None:
        """Connect all sessions and announce all tags."""
        for number in range(sessions):
            session = await self.connect(f"load-{number}", query)
            self._sessions.append(session)
            for tag in range(tags):
                count = len(self.streams)
                self.streams.append(self.stream_of(session, f"{count:08x}-{tag}", 7 * count))
        for stream in self.streams:
            stream.start()

    async def connect(self, name: str, query: str) -> Session:
        """One more session."""
        _, session = await asyncio.get_running_loop().create_connection(
            lambda: Session(name, self.arrivals, query), "127.0.0.1", self._port
        )
        await session.opened
        return session

    def stream_of(self, session: Session, tag: str, offset: int) -> Stream:
        """A tag of a session, which begins with the packet at ``offset``."""
        return Stream(session, tag, self._payloads, offset)

    async def stream(self, seconds: float) -> None:
        """Send at the pace of speech for so long."""
        streams = self.streams
        gap_s = FRAME_S / len(streams)
        began_s = time.monotonic()
        total = round(seconds / gap_s)
        sent = 0
        while sent < total:
            due = min(total, int((time.monotonic() - began_s) / gap_s) + 1)
            self.latest_ms = max(self.latest_ms, (due - sent - 1) * gap_s * 1000)
            for number in range(sent, due):
                streams[number % len(streams)].send()
            self.sent += due - sent
            sent = due
            await asyncio.sleep(_TICK_S)

    async def close(self) -> None:
        """End all sessions as a bridge does and wait until the gateway has closed them."""
        await asyncio.gather(*(session.end() for session in self._sessions))
