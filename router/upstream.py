"""Connections to a remote service: HTTP/1.1, pooled, read and written piece by piece.

RFC 9112. A response's body is read from the socket only as fast as it is taken.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from router.errors import ServiceFailed
from router.writing import HOP_BY_HOP

MAX_BUFFERED = 64 * 1024
"""Bytes of a body that wait to be taken, beyond which the upstream waits."""
MAX_HEAD = 64 * 1024
IDLE_S = 30.0
"""How long an unused connection is kept."""


class Upstream(asyncio.Protocol):
    """One connection, which carries one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.idle_since_s = 0.0
        self.status = 0
        self.reason = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.trailers: list[tuple[bytes, bytes]] = []
        self.is_upgraded = False
        self.rest = b""
        """What came after the head of an upgrade."""
        self.received_any = False
        self._parser: HttpResponseParser | None = None
        self._is_head = False
        self._head_size = 0
        self._has_head = False
        self._complete = False
        self._reusable = True
        self._lost = False
        self._fault: str | None = None
        self._body: deque[bytes] = deque()
        self._buffered = 0
        self._news = asyncio.Event()
        self._can_write = asyncio.Event()
        self._can_write.set()

    @property
    def is_reusable(self) -> bool:
        """Whether another request may follow on this connection."""
        return self._reusable and not self._lost and (self._parser is None or self._complete)

    def begin(self, head: bytes, *, is_head: bool) -> None:
        """Send a request's head; what the connection knew of the last response is gone."""
        self._parser = HttpResponseParser(self)
        self._is_head = is_head
        self._forget()
        self.trailers = []
        self.received_any = self._has_head = self._complete = False
        self._body.clear()
        self._buffered = 0
        self._write(head)

    async def write(self, data: bytes) -> None:
        """Send a piece of the body, once the upstream keeps up."""
        self._write(data)
        await self._can_write.wait()

    async def head(self) -> None:
        """Wait until status and headers are known. Raises ``ServiceFailed``."""
        while not self._has_head:
            if self._fault or self._lost:
                raise ServiceFailed(self._fault or "the upstream closed the connection")
            await self._wait()

    async def piece(self) -> bytes | None:
        """The next piece of the body; None at its end. Raises ``ServiceFailed``."""
        while not self._body:
            if self._complete:
                return None
            if self._fault or self._lost:
                raise ServiceFailed(self._fault or "the upstream closed within its response")
            await self._wait()
        data = self._body.popleft()
        self._buffered -= len(data)
        if self._buffered <= MAX_BUFFERED // 2 and self.transport is not None:
            self.transport.resume_reading()
        return data

    def close(self) -> None:
        """Close without delay."""
        self._reusable = False
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio gives the transport."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=MAX_BUFFERED)

    def data_received(self, data: bytes) -> None:
        """Bytes of a response; without a request they are an offence."""
        if self._parser is None or self._complete:
            self.close()
            return
        self.received_any = True
        if not self._has_head:
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            self.rest = data[upgrade.args[0] :]
            if self.transport is not None:
                self.transport.pause_reading()
        except HttpParserError:
            if not self._complete:
                self._fail("the upstream answered with what is no HTTP")
        if not self._has_head and self._head_size > MAX_HEAD:
            self._fail("the head of the upstream's response is too large")
        if self._buffered > MAX_BUFFERED and self.transport is not None:
            self.transport.pause_reading()
        self._news.set()

    def eof_received(self) -> bool:
        """The upstream sends nothing more: the end of a body without a length."""
        names = {name.lower() for name, _ in self.headers}
        if self._has_head and not names & {b"content-length", b"transfer-encoding"}:
            self._complete = True
        self._reusable = False
        self._news.set()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake whoever waits."""
        self._lost = True
        self._can_write.set()
        self._news.set()

    def pause_writing(self) -> None:
        """The upstream is slower than the client."""
        self._can_write.clear()

    def resume_writing(self) -> None:
        """The upstream has caught up."""
        self._can_write.set()

    def on_status(self, status: bytes) -> None:
        """httptools: the reason phrase."""
        self.reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: a header, or a trailer."""
        (self.trailers if self._has_head else self.headers).append((name, value))

    def on_headers_complete(self) -> None:
        """httptools: the head is known."""
        assert self._parser is not None
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            return
        self.status = status
        self._has_head = True
        self.is_upgraded = status == 101
        # The parser knows it here only: with the end of the body it forgets the length.
        self._reusable = self._reusable and bool(self._parser.should_keep_alive())
        if self._is_head or status in (204, 304):
            self._complete = True
            # The parser still waits for a body that a HEAD's answer only announces.
            self._reusable = self._reusable and not self._is_head

    def on_body(self, data: bytes) -> None:
        """httptools: a piece of the body, its chunks undone."""
        self._body.append(data)
        self._buffered += len(data)

    def on_message_complete(self) -> None:
        """httptools: the end, or that of an interim response."""
        if self._has_head:
            self._complete = True
        else:
            self._forget()

    def _forget(self) -> None:
        self.reason = b""
        self.headers = []
        self._head_size = 0

    def _write(self, data: bytes) -> None:
        if self.transport is None or self._lost:
            raise ServiceFailed("the upstream closed the connection")
        self.transport.write(data)

    def _fail(self, fault: str) -> None:
        self._fault = self._fault or fault
        self.close()

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()


class UpstreamPool:
    """Connections to one upstream; the last used is the first to be used again."""

    def __init__(self, host: str, port: int, *, tls: bool, max_idle: int, connect_s: float) -> None:
        self.address = f"{host}:{port}"
        self._host = host
        self._port = port
        self._tls = ssl.create_default_context() if tls else None
        self._max_idle = max_idle
        self._connect_s = connect_s
        self._idle: deque[Upstream] = deque()

    async def take(self, *, fresh: bool = False) -> tuple[Upstream, bool]:
        """A connection, and whether it was used before. Raises ``ServiceFailed``."""
        loop = asyncio.get_running_loop()
        while self._idle and not fresh:
            upstream = self._idle.pop()
            if upstream.is_reusable and loop.time() - upstream.idle_since_s < IDLE_S:
                return upstream, True
            upstream.close()
        try:
            async with asyncio.timeout(self._connect_s):
                _, upstream = await loop.create_connection(
                    Upstream, self._host, self._port, ssl=self._tls
                )
        except (OSError, TimeoutError) as error:
            why = str(error) or "it does not answer"
            raise ServiceFailed(f"the upstream {self.address} cannot be reached: {why}") from error
        return upstream, False

    def give_back(self, upstream: Upstream) -> None:
        """Keep a connection for the next request, or close it."""
        if upstream.is_reusable and len(self._idle) < self._max_idle:
            upstream.idle_since_s = asyncio.get_running_loop().time()
            self._idle.append(upstream)
        else:
            upstream.close()

    def close(self) -> None:
        """Close all that are idle."""
        while self._idle:
            self._idle.pop().close()


def end_to_end(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Headers without those of one hop, also those that Connection names."""
    named = {
        token.strip().lower()
        for name, value in headers
        if name.lower() == b"connection"
        for token in value.split(b",")
    }
    dropped = HOP_BY_HOP | named
    return [(name, value) for name, value in headers if name.lower() not in dropped]
