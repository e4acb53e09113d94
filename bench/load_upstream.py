"""A stand-in for recognizers' services that costs next to nothing, for ``bench.load``.

    python -m bench.load_upstream

Prints its port, then serves until its standard input closes; to each line read there it answers
with the numbers of connections opened so far and of those still open. Audio is skipped by length.
``bench.load_vendors`` says what it answers. The interims of all connections are spread over their
0.5 s and the finals over their 4 s, as those of people who speak are.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import re
import struct
import sys
from typing import cast

import uvloop

from bench.load_vendors import INTERIM_S, INTERIMS_PER_FINAL, Vendor, vendor_of

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_NORMAL_CLOSE = b"\x88\x02\x03\xe8"
GOLDEN = 0.6180339887498949


class Connections:
    """How many there have been and are."""

    opened = 0
    open = 0


class Upstream(asyncio.BufferedProtocol):
    """One connection of a gateway."""

    def __init__(self) -> None:
        self._buffer = bytearray(1 << 18)
        self._filled = 0
        self._skip = 0
        self._vendor: Vendor | None = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._number = Connections.opened
        self._beats = self._number % INTERIMS_PER_FINAL
        self._next_s = 0.0
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        Connections.opened += 1
        Connections.open += 1

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        Connections.open -= 1
        if self._timer is not None:
            self._timer.cancel()

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, size: int) -> None:
        self._filled += size
        position = 0
        if self._vendor is None:
            position = self._handshake()
        while self._transport is not None and self._vendor is not None:
            if self._skip:
                step = min(self._skip, self._filled - position)
                self._skip -= step
                position += step
            if self._skip or (header := self._header(position)) is None:
                break
            opcode, length, header_bytes = header
            if opcode < 8 and self._vendor.is_audio(opcode, length):
                self._vendor.audio(length)
                self._skip = header_bytes + length
                continue
            end = position + header_bytes + length
            if end > self._filled:
                break
            mask = self._buffer[position + header_bytes - 4 : position + header_bytes]
            payload = bytes(
                byte ^ key
                for byte, key in zip(
                    self._buffer[position + header_bytes : end], itertools.cycle(mask), strict=False
                )
            )
            self._message(self._vendor, opcode, payload)
            position = end
        rest = self._filled - position
        self._buffer[:rest] = self._buffer[position : self._filled]
        self._filled = rest

    def _handshake(self) -> int:
        end = self._buffer.find(b"\r\n\r\n", 0, self._filled)
        if end < 0 or self._transport is None:
            return 0
        head = bytes(self._buffer[:end])
        key = re.search(rb"(?i)sec-websocket-key: *(\S+)", head)
        assert key is not None
        accept = base64.b64encode(hashlib.sha1(key[1] + _GUID).digest())
        protocols = re.search(rb"(?i)sec-websocket-protocol: *([^,\r]+)", head)
        chosen = b"Sec-WebSocket-Protocol: %b\r\n" % protocols[1] if protocols else b""
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n%b\r\n" % (accept, chosen)
        )
        self._vendor = vendor_of(head.split(b" ", 2)[1].decode(), self._send)
        self._vendor.opened()
        # However close together they connect: the golden ratio spreads any number evenly.
        phase_s = self._number * GOLDEN % 1.0 * INTERIM_S
        now_s = self._loop.time()
        self._next_s = now_s + INTERIM_S + (phase_s - now_s) % INTERIM_S
        self._timer = self._loop.call_at(self._next_s, self._beat, self._vendor)
        return end + 4

    def _header(self, position: int) -> tuple[int, int, int] | None:
        """Opcode, payload length and header length (mask included) of the frame at ``position``."""
        there = self._filled - position
        if there < 2:
            return None
        opcode, length = self._buffer[position] & 0x0F, self._buffer[position + 1] & 0x7F
        size = {126: 8, 127: 14}.get(length, 6)
        if there < size:
            return None
        if size == 8:
            (length,) = struct.unpack_from(">H", self._buffer, position + 2)
        elif size == 14:
            (length,) = struct.unpack_from(">Q", self._buffer, position + 2)
        return opcode, length, size

    def _message(self, vendor: Vendor, opcode: int, payload: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if opcode == 9:
            self._transport.write(bytes((0x8A, len(payload))) + payload)
        elif opcode == 8 or (opcode < 8 and not vendor.control(payload)):
            self._transport.write(_NORMAL_CLOSE)
            self._transport.close()

    def _beat(self, vendor: Vendor) -> None:
        self._next_s = max(self._next_s + INTERIM_S, self._loop.time())
        self._timer = self._loop.call_at(self._next_s, self._beat, vendor)
        self._beats += 1
        if self._beats % INTERIMS_PER_FINAL == 0:
            vendor.final()
        else:
            vendor.interim()

    def _send(self, text: str) -> None:
        if self._transport is None:
            return
        data = text.encode()
        head = b"\x81" + (
            bytes((len(data),)) if len(data) < 126 else b"\x7e" + struct.pack(">H", len(data))
        )
        self._transport.write(head + data)


async def serve() -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(Connections.opened, Connections.open, flush=True)
    server.close()


if __name__ == "__main__":
    uvloop.run(serve())
