"""Two connections joined: what comes on the one goes out on the other, as fast as both are."""

from __future__ import annotations

import asyncio

MAX_BUFFERED = 64 * 1024


class Tunnel:
    """Owns both transports once it is open."""

    def __init__(self, client: asyncio.Transport, upstream: asyncio.Transport) -> None:
        self.closed = asyncio.Event()
        self._sides = (_Side(client, upstream, self), _Side(upstream, client, self))

    def open(self) -> None:
        """Relay from now on."""
        for side in self._sides:
            side.transport.set_write_buffer_limits(high=MAX_BUFFERED)
            side.transport.set_protocol(side)
        for side in self._sides:
            side.transport.resume_reading()

    def close(self) -> None:
        """Close both sides; what was written before still goes out."""
        for side in self._sides:
            side.transport.close()
        self.closed.set()


class _Side(asyncio.Protocol):
    """Reads one transport into the other."""

    def __init__(
        self, transport: asyncio.Transport, other: asyncio.Transport, tunnel: Tunnel
    ) -> None:
        self.transport = transport
        self._other = other
        self._tunnel = tunnel

    def data_received(self, data: bytes) -> None:
        if not self._other.is_closing():
            self._other.write(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._tunnel.close()

    def pause_writing(self) -> None:
        """This side is slow: read no more of the other."""
        if not self._other.is_closing():
            self._other.pause_reading()

    def resume_writing(self) -> None:
        if not self._other.is_closing():
            self._other.resume_reading()
