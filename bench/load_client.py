"""A bridge for many sessions that costs next to nothing: made frames, raw sockets, steady pace.

Frames are masked with the key 0, which leaves the payload as it is (legal, RFC 6455 section 5.3)
and costs the gateway what any key does. Each packet is a write of its own, as in a call; the
streams are spread evenly over the 20 ms.
"""

from __future__ import annotations

import asyncio
import base64
import os
import random
import re
import ssl
import struct
import time
from collections.abc import Sequence
from typing import cast

import msgspec

FRAME_MS = 20
CLOSE_WITHIN_S = 20.0
ANSWER_WITHIN_S = 60.0
FLOOD_FRAMES = 10
"""Packets of each tag in one write of a flood."""
UNSENT_BYTES = 256 * 1024
"""What may wait in a session of a flood."""
_TICK_S = 0.001
_STAMP = re.compile(rb"t(\d{9,})")
_PLACE = re.compile(rb'"tag":"([^"]*)".*"end_ms":(-?\d+)')


class Arrival(msgspec.Struct, frozen=True):
    """One result."""

    at_s: float
    is_final: bool
    delay_ms: float | None
    """How long after the stand-in had sent it; None when it is not the stand-in's."""
    lag_ms: float | None
    """How long after the last of its audio was due to be sent; finals only."""


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
        self._pong: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport | None = None
        self.is_writable = True
        """Whether less than ``UNSENT_BYTES`` wait."""
        self.sequence = 0
        self.streams: dict[bytes, Stream] = {}
        self.is_leaving = False
        """Whether its end is its own doing."""
        self._upgraded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(UNSENT_BYTES)
        key = base64.b64encode(os.urandom(16)).decode()
        self.transport.write(
            f"GET /transcribe?sessionId={self._name}&{self._query} HTTP/1.1\r\n"
            "Host: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self.is_writable = False
        if not self.opened.done():
            self.opened.set_exception(ConnectionError("the gateway hung up during the upgrade"))
        if self._pong is not None and not self._pong.done():
            self._pong.set_exception(ConnectionError("the gateway hung up"))
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        self.is_writable = False

    def resume_writing(self) -> None:
        self.is_writable = True

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
            elif b'"transcription-result"' in payload:
                self._result(payload, now_ns)
            elif b'"pong"' in payload and self._pong is not None and not self._pong.done():
                self._pong.set_result(None)

    def _result(self, payload: bytes, now_ns: int) -> None:
        stamps = _STAMP.findall(payload)
        delay_ms = (now_ns - int(stamps[-1])) / 1e6 if stamps else None
        is_final = b'"is_interim":false' in payload
        lag_ms = None
        if is_final and (place := _PLACE.search(payload)):
            stream = self.streams.get(place[1])
            if stream is not None:
                lag_ms = stream.position * FRAME_MS - float(place[2])
        self._arrivals.append(Arrival(now_ns / 1e9, is_final, delay_ms, lag_ms))

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

    async def answered(self) -> None:
        """Wait until the gateway has taken all that was sent so far."""
        self._pong = self._loop.create_future()
        self.send(frame(b'{"event":"ping","id":1}'))
        async with asyncio.timeout(ANSWER_WITHIN_S):
            await self._pong

    async def end(self) -> None:
        """Leave as a bridge does, with ``session-end``, and wait until the gateway has closed."""
        self.is_leaving = True
        self.send(frame(b'{"event":"session-end","event":"session-end"}'))
        await asyncio.wait([self.closed], timeout=CLOSE_WITHIN_S)
        self.drop()

    def drop(self) -> None:
        """Be gone without a word."""
        self.is_leaving = True
        if self.transport is not None:
            self.transport.abort()

    def send(self, frames: bytes) -> None:
        """Send what ``frame`` made."""
        if self.transport is not None:
            self.transport.write(frames)

    def _write(self, first: int, payload: bytes) -> None:
        self.send(bytes((first, 0x80 | len(payload))) + b"\0\0\0\0" + payload)


def frame(text: bytes) -> bytes:
    """A text message as a client sends it."""
    size = len(text)
    head = bytes((0x81, 0x80 | size)) if size < 126 else struct.pack(">BBH", 0x81, 0xFE, size)
    return head + b"\0\0\0\0" + text


class Stream:
    """One tag of a session, looping over the same packets from an offset of its own."""

    def __init__(
        self, session: Session, tag: str, payloads: Sequence[bytes], offset: int, loss: float
    ) -> None:
        """``loss`` is the share of packets that are lost, and of those that their next passes."""
        self.session = session
        self._tag = tag.encode()
        self._payloads = payloads
        self._offset = offset
        self._loss = loss
        self._random = random.Random(offset)
        self._held = b""
        self._chunk = 1000
        self.position = 0
        """Packets that were due so far."""
        self.sent = 0
        """Of which were sent."""
        session.streams[self._tag] = self

    def start(self) -> None:
        """Announce the tag."""
        self.session.sequence += 1
        self.session.send(
            frame(
                b'{"event":"start","sequenceNumber":"%d","start":{"tag":"%b","mediaFormat":'
                b'{"encoding":"opus","sampleRate":48000,"channels":2}},"event":"start"}'
                % (self.session.sequence, self._tag)
            )
        )

    def send(self) -> None:
        """Send the next packet, if it is not lost or held back."""
        if frames := self.next():
            self.session.send(frames)

    def next(self) -> bytes:
        """The frames that are due with the next packet: none, one or two."""
        index = self.position
        self.position = index + 1
        if self._loss:
            fate = self._random.random()
            if fate < self._loss:
                return b""
            if fate < 2 * self._loss and not self._held:
                self._held = self._packet(index)
                return b""
            if self._held:
                held, self._held = self._held, b""
                self.sent += 2
                return self._packet(index) + held
        self.sent += 1
        return self._packet(index)

    def _packet(self, index: int) -> bytes:
        session = self.session
        session.sequence += 1
        return frame(
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
    """The sessions and streams of a run; ``open``, then ``stream`` or ``flood``, then ``close``."""

    def __init__(
        self,
        port: int,
        packets: Sequence[bytes],
        *,
        tls: ssl.SSLContext | None = None,
        loss: float = 0.0,
    ) -> None:
        self._port = port
        self._tls = tls
        self._loss = loss
        self._payloads = [base64.b64encode(packet) for packet in packets]
        self._sessions: list[Session] = []
        self.streams: list[Stream] = []
        """They send in turn; one may be put in another's place at any time."""
        self.arrivals: list[Arrival] = []
        self.due = 0
        """Packets that had to be sent so far."""
        self.latest_ms = 0.0
        """How far the client itself has been behind its pace."""

    @property
    def sent(self) -> int:
        """Packets that the streams still here have sent."""
        return sum(stream.sent for stream in self.streams)

    @property
    def unsent_bytes(self) -> int:
        """What the gateway and the kernel have not taken."""
        transports = [session.transport for session in self._sessions]
        return sum(each.get_write_buffer_size() for each in transports if each is not None)

    async def open(self, tags: Sequence[int], query: str) -> None:
        """Connect a session for each of ``tags`` and announce so many tags in it."""
        for number, count in enumerate(tags):
            session = await self.connect(f"load-{number}", query)
            self._sessions.append(session)
            for tag in range(count):
                index = len(self.streams)
                self.streams.append(self.stream_of(session, f"{index:08x}-{tag}", 7 * index))
        for stream in self.streams:
            stream.start()

    async def connect(self, name: str, query: str) -> Session:
        """One more session."""
        _, session = await asyncio.get_running_loop().create_connection(
            lambda: Session(name, self.arrivals, query), "127.0.0.1", self._port, ssl=self._tls
        )
        await session.opened
        return session

    def stream_of(self, session: Session, tag: str, offset: int) -> Stream:
        """A tag of a session, which begins with the packet at ``offset``."""
        return Stream(session, tag, self._payloads, offset, self._loss)

    async def stream(self, seconds: float) -> None:
        """Send at the pace of speech for so long."""
        streams = self.streams
        gap_s = FRAME_MS / 1000 / len(streams)
        began_s = time.monotonic()
        total = round(seconds / gap_s)
        sent = 0
        while sent < total:
            due = min(total, int((time.monotonic() - began_s) / gap_s) + 1)
            self.latest_ms = max(self.latest_ms, (due - sent - 1) * gap_s * 1000)
            for number in range(sent, due):
                streams[number % len(streams)].send()
            self.due += due - sent
            sent = due
            await asyncio.sleep(_TICK_S)

    async def flood(self, seconds: float) -> None:
        """Send as fast as it is taken for so long, then wait until all of it is."""
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            writable = [session for session in self._sessions if session.is_writable]
            for session in writable:
                streams = tuple(session.streams.values())
                session.send(
                    b"".join(stream.next() for _ in range(FLOOD_FRAMES) for stream in streams)
                )
                self.due += FLOOD_FRAMES * len(streams)
            await asyncio.sleep(0 if writable else _TICK_S)
        await asyncio.gather(*(session.answered() for session in self._sessions))

    async def close(self) -> None:
        """End all sessions as a bridge does and wait until the gateway has closed them."""
        await asyncio.gather(*(session.end() for session in self._sessions))
