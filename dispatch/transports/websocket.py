"""``websocket``: a connection for each session, on which one message at a time is answered.

The address is that of ``DISPATCHER_WS_URL`` with ``sessionId`` in its query. A message is one text,
its answer one text with an ``RPCResponse``; the next message is sent when the answer is there. A
service that can take nothing closes the connection, best with 1013.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    WebSocketException,
)
from websockets.protocol import State

from dispatch.addresses import check_url
from dispatch.errors import Refused, Unreachable
from dispatch.interface import Transport
from dispatch.messages import Envelope, decode_answer
from dispatch.transports.http import retry_after_s

MAX_ANSWER_BYTES = 65536
MAX_CONNECTIONS = 1000
IDLE_S = 300.0
FIRST_DELAY_S = 0.25
LONGEST_DELAY_S = 10.0
CLOSE_WITHIN_S = 1.0
REFUSALS = frozenset({1007, 1009})
"""Codes of a close frame that are about what the message holds (RFC 6455, 7.4.1)."""


def address(url: str, session: str) -> str:
    """The URL with ``sessionId`` after whatever its query holds."""
    parts = urlsplit(url)
    query = f"{parts.query}&" if parts.query else ""
    return urlunsplit(parts._replace(query=f"{query}sessionId={quote(session, safe='')}"))


class Direct(connect):
    """Follows no redirect: messages and headers would go where nobody sent them."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class Line:
    """A session's connection; ``turn`` is held by who uses it, ``users`` counts who waits, too."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.users = 0
        self.socket: ClientConnection | None = None
        self.is_answered = True
        """Whether no answer is on its way that the next message would take for its own."""
        self.used_at_s = time.monotonic()


class WebSocketTransport(Transport):
    """At most ``max_connections``; the one that was used longest ago makes room for another.

    After a connection could not be made none is tried for a while, which doubles from
    ``FIRST_DELAY_S`` to ``LONGEST_DELAY_S``, with jitter. ``ValueError`` for a URL that cannot
    be one.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        deadline_s: float = 10.0,
        idle_s: float = IDLE_S,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        """``idle_s``: a connection on which nothing was sent for so long is closed."""
        self._url = check_url(url, "ws", "wss")
        self._headers = dict(headers or {})
        self._deadline_s = deadline_s
        self._idle_s = idle_s
        self._max_connections = max_connections
        self._tls: ssl.SSLContext | None = None
        self._lines: dict[str, Line] = {}
        self._failures = 0
        self._not_before_s = 0.0
        self._sweeper: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        if urlsplit(self._url).scheme == "wss":
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        self._sweeper = asyncio.create_task(self._sweep())

    async def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        for line in self._lines.values():
            self._close_soon(line)
        self._lines.clear()
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def send(self, envelopes: Sequence[Envelope]) -> int:
        line = self._line(envelopes[0].session)
        line.users += 1
        try:
            async with line.turn:
                return await self._converse(line, envelopes)
        finally:
            line.users -= 1
            line.used_at_s = time.monotonic()

    async def _converse(self, line: Line, envelopes: Sequence[Envelope]) -> int:
        start_s = time.monotonic()
        count = 0
        try:
            async with asyncio.timeout(self._deadline_s):
                socket = await self._socket(line, envelopes[0].session)
                for envelope in envelopes:
                    if count and time.monotonic() - start_s > self._deadline_s / 2:
                        break
                    line.is_answered = False
                    await socket.send(envelope.body, text=True)
                    answer = decode_answer(await socket.recv(decode=False))
                    line.is_answered = True
                    if not answer.success:
                        raise Refused("the dispatcher answered without success")
                    count += 1
        except BaseException as error:
            if not line.is_answered:
                self._close_soon(line)
            reason = reason_of(error, self._deadline_s)
            if reason is None:
                raise
            if not count:
                raise reason from error
        return count

    def _line(self, session: str) -> Line:
        """The session's, or a new one in the place of one that is not in use."""
        line = self._lines.pop(session, None)
        if line is None:
            if len(self._lines) >= self._max_connections:
                self._make_room()
            line = Line()
        self._lines[session] = line
        return line

    def _make_room(self) -> None:
        for session, line in self._lines.items():
            if not line.users:
                self._drop(session)
                return
        raise Unreachable(f"{self._max_connections} connections are in use")

    async def _socket(self, line: Line, session: str) -> ClientConnection:
        """The open connection, made if there is none; ``Unreachable`` while none is tried."""
        if line.socket is not None:
            if line.socket.state is State.OPEN:
                return line.socket
            self._close_soon(line)
        wait_s = self._not_before_s - time.monotonic()
        if wait_s > 0:
            raise Unreachable("the service could not be connected to just now", wait_s)
        try:
            line.socket = await Direct(
                address(self._url, session),
                additional_headers=self._headers,
                user_agent_header="edgescribe",
                compression=None,
                proxy=None,
                ssl=self._tls,
                open_timeout=None,
                close_timeout=CLOSE_WITHIN_S,
                max_size=MAX_ANSWER_BYTES,
            )
        except InvalidStatus:
            # Others may be let in.
            raise
        except (OSError, InvalidHandshake, asyncio.CancelledError):
            self._failures += 1
            delay_s = min(FIRST_DELAY_S * 2 ** min(self._failures - 1, 16), LONGEST_DELAY_S)
            self._not_before_s = time.monotonic() + delay_s * random.uniform(0.5, 1.0)
            raise
        self._failures = 0
        line.is_answered = True
        return line.socket

    def _drop(self, session: str) -> None:
        self._close_soon(self._lines.pop(session))

    def _close_soon(self, line: Line) -> None:
        """Let go of a line's connection, if it has one."""
        socket, line.socket = line.socket, None
        if socket is not None:
            task = asyncio.create_task(socket.close(reason="Session ended"))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _sweep(self) -> None:
        """Close connections of sessions that are silent, or over."""
        while True:
            await asyncio.sleep(self._idle_s / 4)
            until_s = time.monotonic() - self._idle_s
            for session, line in list(self._lines.items()):
                if line.used_at_s < until_s and not line.users:
                    self._drop(session)


def reason_of(error: BaseException, deadline_s: float) -> Exception | None:
    """What the dispatcher is told of an error; None for one that is none of the service's."""
    if isinstance(error, Refused | Unreachable):
        return error
    if isinstance(error, msgspec.DecodeError):
        return Refused("the answer is not an RPCResponse")
    if isinstance(error, TimeoutError):
        return Unreachable(f"no answer within {deadline_s:g} s")
    if isinstance(error, InvalidStatus):
        response = error.response
        asked_s = retry_after_s(response.headers.get("Retry-After"), time.time())
        return Unreachable(f"status {response.status_code}", asked_s)
    if isinstance(error, InvalidHandshake):
        return Unreachable(f"the handshake failed: {type(error).__name__}")
    if isinstance(error, ConnectionClosed):
        return closed(error)
    if isinstance(error, WebSocketException | OSError):
        return Unreachable(f"the service was not reached: {type(error).__name__}")
    return None


def closed(error: ConnectionClosed) -> Exception:
    """What a closed connection says of the message that was sent last."""
    if error.sent is not None and error.sent.code == 1009 and not error.rcvd_then_sent:
        return Refused(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
    if error.rcvd is None:
        return Unreachable("the connection was lost")
    if error.rcvd.code in REFUSALS:
        return Refused(f"the service closed with {error.rcvd.code}", final=True)
    return Unreachable(f"the service closed with {error.rcvd.code}")
