"""The network between a recognizer and its service, and all that may happen to it.

It knows WebSocket frames only as far as to end a connection between two of them, so that it stands
before any vendor's fake.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

CLOSE_WITHOUT_CODE = b"\x88\x00"
CLOSE_1011 = b"\x88\x02\x03\xf3"
STATUS_TEXTS = {401: "Unauthorized", 429: "Too Many Requests", 503: "Service Unavailable"}


class Route:
    """One connection through the proxy."""

    def __init__(
        self,
        near: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        far: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._near, self._far = near, far
        self._up, self._down = asyncio.Event(), asyncio.Event()
        self._up.set()
        self._down.set()
        self._answered = False
        """Whether the answer to the opening handshake is through; frames follow."""
        self._closed = False

    async def run(self) -> None:
        """Forward until either side has gone, and then end the other."""
        pumps = [asyncio.create_task(pump) for pump in (self._pump_up(), self._pump_down())]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.drop()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    def drop(self) -> None:
        """Cut it, without a word to either side."""
        for _, writer in (self._near, self._far):
            writer.transport.abort()
            writer.close()

    def mute(self) -> None:
        """The service hears, and is not heard any more."""
        self._down.clear()

    def part(self) -> None:
        """Nothing comes through any more, in no direction; nobody is told."""
        self._up.clear()
        self._down.clear()

    def say(self, frame: bytes) -> None:
        """Send this in the service's name; of the service nothing follows."""
        if not self._closed:
            self._closed = True
            self._near[1].write(frame)

    async def _pump_up(self) -> None:
        with suppress(OSError):
            while data := await self._near[0].read(65536):
                await self._up.wait()
                self._far[1].write(data)
                await self._far[1].drain()

    async def _pump_down(self) -> None:
        waiting = b""
        with suppress(OSError):
            while data := await self._far[0].read(65536):
                await self._down.wait()
                whole, waiting = self._whole(waiting + data)
                if whole and not self._closed:
                    self._near[1].write(whole)
                    await self._near[1].drain()
            if self._closed:
                await asyncio.Event().wait()  # the client hangs up

    def _whole(self, data: bytes) -> tuple[bytes, bytes]:
        """The frames that are complete, and the rest."""
        end = 0
        if not self._answered:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                return b"", data
            self._answered = True
        while (size := _frame_size(data[end : end + 10])) and end + size <= len(data):
            end += size
        return data[:end], data[end:]


class Proxy:
    """``async with Proxy(endpoint.url) as proxy``; then ``proxy.url``."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.routes: list[Route] = []
        """The open ones, oldest first."""
        self.refusals: deque[int] = deque()
        """Answer the next handshakes with these statuses."""
        self.refuse_all: int | None = None
        self.delays_s: deque[float] = deque()
        """Hold the next handshakes up for so long."""
        self.parted = asyncio.Event()
        """Cleared while no connection is made at all."""
        self.parted.set()
        self.attempts = 0

    @property
    def url(self) -> str:
        """The endpoint's address, by way of this proxy."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return self._target._replace(netloc=f"127.0.0.1:{port}").geturl()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.attempts += 1
        try:
            await self._connect(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        status = self.refusals.popleft() if self.refusals else self.refuse_all
        if self.delays_s:
            await asyncio.sleep(self.delays_s.popleft())
        await self.parted.wait()
        if status is not None:
            await reader.readuntil(b"\r\n\r\n")
            head = f"HTTP/1.1 {status} {STATUS_TEXTS[status]}\r\n"
            writer.write(f"{head}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
            await reader.read()
            return
        far = await asyncio.open_connection(self._target.hostname, self._target.port)
        route = Route((reader, writer), far)
        self.routes.append(route)
        try:
            await route.run()
        finally:
            self.routes.remove(route)


def _frame_size(head: bytes) -> int:
    """Bytes of the unmasked frame that begins so, 0 if that cannot be told yet (RFC 6455 5.2)."""
    if len(head) < 2:
        return 0
    length = head[1] & 0x7F
    extra = {126: 2, 127: 8}.get(length, 0)
    if len(head) < 2 + extra:
        return 0
    return 2 + extra + (int.from_bytes(head[2 : 2 + extra], "big") if extra else length)
