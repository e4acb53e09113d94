"""The lane beside Sanic: plain handlers turn HTTP connections into WebSockets, or cut them.

``LaneProtocol`` is the protocol class that Sanic is started with. A handler returns what
``accept`` or ``refuse`` gives it; from then on the connection is no longer Sanic's::

    fault = handshake_fault(request)
    if fault is not None:
        return fault
    return accept(request, receiver, lanes=lanes)
"""

from __future__ import annotations

import asyncio
import socket
from http import HTTPStatus
from typing import Any

from sanic import HTTPResponse, Request
from sanic.http import Http, Stage
from sanic.response import text
from sanic.server import HttpProtocol

from edge.transport import handshake
from edge.transport.connection import Connection
from edge.transport.interface import Limits, Receiver
from edge.transport.registry import Lanes
from edge.transport.writing import WRITE_BUFFER_BYTES


class LaneProtocol(HttpProtocol):
    """Sanic's HTTP protocol, which can let go of its transport.

    A request has a deadline as a whole: the time since its first byte counts, where Sanic counts
    since the last, so that a byte now and then would keep a connection for ever.
    """

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Bytes of a request, or of its body when it has been answered already."""
        began_s = self._time
        # Unset until Sanic's task for the connection has begun.
        http: Http | None = getattr(self, "_http", None)
        super().data_received(data)
        if http is not None and (http.stage is Stage.REQUEST or http.request_body):
            self._time = began_s

    @property
    def is_lost(self) -> bool:
        """Whether the peer has gone away already."""
        return self.transport is None or self.conn_info is None or self.conn_info.lost

    def let_go(self) -> tuple[asyncio.Transport, bytes]:
        """Give up the transport; returns it and the bytes that came after the request.

        Sanic's task for this connection ends by itself once its handler has returned, and without
        a transport it closes nothing.
        """
        transport = self.transport
        if transport is None:
            raise RuntimeError("the connection has no transport to let go of")
        rest = bytes(self.recv_buffer)
        self.recv_buffer.clear()
        self.transport = None
        self.connections.discard(self)
        return transport, rest

    def cut(self, last_words: bytes) -> None:
        """Send ``last_words`` and close."""
        if self.transport is not None and not self.is_lost:
            self.transport.write(last_words)
            self.close()


class _Answered(HTTPResponse):
    """Stands in for a response where the socket has been answered already."""

    __slots__ = ()

    async def send(self, data: Any = None, end_stream: bool | None = None) -> None:
        """Send nothing and end Sanic's care of the connection."""
        if isinstance(self.stream, Http):
            self.stream.keep_alive = False
            self.stream.stage = Stage.IDLE


def handshake_fault(request: Request) -> HTTPResponse | None:
    """The answer to a request that is not a right WebSocket handshake, None when it is one.

    426 asks for a WebSocket or for its version 13, 400 names the header that is wrong.
    """
    fault = handshake.find_fault(request.method, request.version, request.headers)
    if fault is None:
        return None
    headers = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"} if fault.status == 426 else {}
    return text(fault.text, status=fault.status, headers=headers)


def accept(
    request: Request,
    receiver: Receiver,
    *,
    lanes: Lanes,
    limits: Limits | None = None,
    subprotocol: str | None = None,
) -> HTTPResponse:
    """Upgrade the connection and feed ``receiver``; the handler must return the answer.

    ``receiver.opened`` and the messages that came with the handshake are delivered before this
    returns, ``receiver.closed`` follows in every case. When the handshake has a fault the answer
    says so and the receiver is never called; check ``handshake_fault`` first where the receiver
    holds something. ``ValueError`` for a ``subprotocol`` that the client did not offer.
    """
    fault = handshake_fault(request)
    if fault is not None:
        return fault
    if subprotocol is not None and subprotocol not in handshake.offered_subprotocols(
        request.headers
    ):
        raise ValueError(f"subprotocol {subprotocol!r} was not offered by the client")
    protocol = _protocol(request)
    lost = protocol.is_lost
    transport, first = protocol.let_go()
    connection = Connection(
        transport, receiver, lanes, limits or Limits(), siblings=protocol.connections
    )
    if not lost:
        protocol.connections.add(connection)
        transport.set_protocol(connection)
        high = min(WRITE_BUFFER_BYTES, lanes.settings.client_outbox_bytes)
        transport.set_write_buffer_limits(high=high, low=high // 4)
        transport.write(handshake.answer(request.headers, subprotocol))
        transport.resume_reading()
        _tune(transport, lanes.settings.client_receive_buffer_bytes)
    lanes.enter(connection, first, lost=lost)
    return _Answered(status=101)


def refuse(request: Request, status: int, body: str, retry_after_s: int = 0) -> HTTPResponse:
    """Answer with a bare status line and body and cut the connection.

    There is no header but ``Retry-After``, where ``retry_after_s`` is not 0.
    """
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
    if retry_after_s:
        head += f"Retry-After: {retry_after_s}\r\n"
    _protocol(request).cut(f"{head}\r\n{body}".encode())
    return _Answered(status=status)


def _protocol(request: Request) -> LaneProtocol:
    stream = request.stream
    protocol = None if stream is None else stream.protocol
    if not isinstance(protocol, LaneProtocol):
        raise RuntimeError("Sanic was not started with protocol=LaneProtocol")
    return protocol


def _tune(transport: asyncio.Transport, receive_buffer_bytes: int) -> None:
    """Set TCP_NODELAY, which not every event loop does for a socket that Sanic has bound.

    And bound what the kernel keeps of a client that is read slowly: by itself it would keep
    megabytes.
    """
    handle = transport.get_extra_info("socket")
    if handle is None or handle.family not in (socket.AF_INET, socket.AF_INET6):
        return
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if receive_buffer_bytes:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
