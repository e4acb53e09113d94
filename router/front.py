"""The server's side: Sanic's parser, with requests that keep whatever target they came with.

``Routed`` is mixed into a protocol class of Sanic; the application it serves holds what handles
its requests as ``app.ctx.router``. Sanic's minor version is pinned: this file leans on the stages
of ``sanic.http.Http``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from httptools import HttpParserInvalidURLError, parse_url
from sanic import Request
from sanic.compat import Header
from sanic.exceptions import (
    BadRequest,
    BadURL,
    ExpectationFailed,
    PayloadTooLarge,
    URITooLong,
)
from sanic.helpers import STATUS_CODES, has_message_body
from sanic.http import Http, Stage
from sanic.server.protocols.websocket_protocol import WebSocketProtocol

from router.decision import Decision, RequestHead

if TYPE_CHECKING:
    from router.registry import Namespace
    from router.router import Router
    from router.service import Service

BLANKS = " \t"
STATUS_LINES = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, phrase)
    for status, phrase in STATUS_CODES.items()
    if status >= 200 and has_message_body(status)
}
NO_HOSTS: tuple[str, ...] = ()
VERSIONS = {"HTTP/1.1": True, "HTTP/1.0": False}
"""Whether a connection is kept if nothing is said."""
NOTED = frozenset(("connection", "content-length", "host", "transfer-encoding", "upgrade"))
"""Fields that the connection itself minds."""


class RoutedRequest(Request):
    """A request whose target is kept as it came, also where Sanic cannot read it.

    ``raw_url`` stays what the client sent; ``path`` becomes the normalised one.
    """

    __slots__ = ("decision", "hosts", "is_readable", "router")

    decision: Decision[Service]
    hosts: Sequence[str]
    """The values of all Host fields."""
    is_readable: bool
    """Whether Sanic could read the target as it came."""
    router: Router

    def __init__(
        self,
        url_bytes: bytes,
        headers: Header,
        version: str,
        method: str,
        transport: Any,
        app: Any,
        head: bytes = b"",
        stream_id: int = 0,
    ) -> None:
        self.hosts = NO_HOSTS
        self.is_readable = True
        try:
            Request.__init__(
                self, url_bytes, headers, version, method, transport, app, head, stream_id
            )
        except (BadURL, URITooLong):
            Request.__init__(self, b"*", headers, version, method, transport, app, head, stream_id)
            self.raw_url = url_bytes
            self.is_readable = False

    def routing_head(self, *, with_proxy: bool) -> RequestHead:
        """What the decision is made of; what a proxy tells only if it may count."""
        headers = self.headers
        target = self.raw_url.decode("ascii")
        if not with_proxy:
            return RequestHead(self.method, target, self.hosts, self.version)
        return RequestHead(
            self.method,
            target,
            self.hosts,
            self.version,
            headers.get("x-forwarded-host"),
            headers.get("forwarded"),
            self.conn_info.client_ip if self.conn_info else None,
        )

    def retarget(self, decision: Decision[Service]) -> bool:
        """Show the service the path of the decision; False when it is none that can be read."""
        target = (decision.path + decision.query).encode("ascii")
        if target == self.raw_url and self.is_readable:
            return True
        try:
            self._parsed_url = parse_url(target)
        except HttpParserInvalidURLError:
            return target == b"*"
        return True

    @property
    def namespace(self) -> Namespace:
        """The services beside the one that is asked: ``namespace.get("queue")`` calls another."""
        return self.router.namespaces[self.decision.environment.lower()]

    @property
    def exchange(self) -> RoutedHttp:
        """The connection's side of this request."""
        stream = self.stream
        if not isinstance(stream, RoutedHttp):
            raise RuntimeError("the request is over")
        return stream

    @property
    def is_upgrade(self) -> bool:
        """Whether the client asks for a WebSocket."""
        return bool(self.exchange.upgrade_websocket)


class RoutedHttp(Http):
    """Sanic's HTTP connection, with a bound for a service's request bodies.

    It reads a request's head in one pass over the fields, which also finds the hosts: what the
    decision costs is saved there.
    """

    # Sanic takes the signals that nobody listens to out of these methods.
    __touchup__ = ("http1_request_header",)  # type: ignore[assignment]
    __slots__ = ("max_body",)

    max_body: int | None
    """Of the request's service; unset before the first one."""
    url: str
    perft0: float
    request_body: Any
    response_func: Any

    async def http1_request_header(self) -> None:
        """Receive a request's head and make the request of it; refusals are Sanic's own."""
        buffer = self.recv_buffer
        end = buffer.find(b"\r\n\r\n")
        while end < 0:
            seen = max(0, len(buffer) - 3)
            if seen >= self.HEADER_MAX_SIZE:
                break
            await self._receive_more()
            end = buffer.find(b"\r\n\r\n", seen)
        if not 0 <= end < self.HEADER_MAX_SIZE:
            raise PayloadTooLarge("Request header exceeds the size limit")
        head = bytes(buffer[:end])
        fields: list[tuple[str, str]] = []
        hosts: list[str] = []
        framing = upgrade = None
        try:
            first, *lines = head.decode(errors="surrogateescape").split("\r\n")
            method, self.url, protocol = first.split(" ")
            await self.dispatch("http.lifecycle.read_head", inline=True, context={"head": head})
            self.keep_alive = VERSIONS[protocol]
            for line in lines:
                name, value = line.split(":", 1)
                name, value = field = name.lower(), value.lstrip()
                fields.append(field)
                if name not in NOTED:
                    continue
                if name == "host":
                    hosts.append(value.strip(BLANKS))
                elif name == "connection":
                    self.keep_alive = value.lower() == "keep-alive"
                elif name == "upgrade":
                    upgrade = upgrade or field
                elif framing is not None:
                    raise ValueError("a body is framed twice")
                else:
                    framing = field
            url = self.url.encode("ascii")
        except (KeyError, ValueError):
            raise BadRequest("Bad Request") from None
        connection: Any = self.protocol
        if not connection.app.config.KEEP_ALIVE:
            self.keep_alive = False
        self.head_only = method.upper() == "HEAD"
        self.upgrade_websocket = upgrade is not None and upgrade[1].lower() == "websocket"
        request: RoutedRequest = connection.request_class(
            url, Header(fields), protocol[5:], method, connection.transport, connection.app, head
        )
        request.hosts = hosts
        request._current.set(request)
        await self.dispatch("http.lifecycle.request", inline=True, context={"request": request})
        self.request_bytes_left = self.request_bytes = 0
        if framing is not None:
            end -= self._frame_body(request, *framing)
        del buffer[: end + 4]
        self.request, request.stream = request, self
        connection.state["requests_count"] += 1

    def _frame_body(self, request: RoutedRequest, name: str, value: str) -> int:
        """Get ready for the body; returns how many bytes of the head's end belong to it."""
        expect = request.headers.get("expect")
        if expect is not None:
            if expect.lower() != "100-continue":
                raise ExpectationFailed(f"Unknown Expect: {expect}")
            self.expecting_continue = True
        if name == "transfer-encoding":
            if value != "chunked":
                raise BadRequest("Bad content-length")
            self.request_body = "chunked"
            return 2
        self.request_body = True
        try:
            self.request_bytes_left = self.request_bytes = self._safe_int(value)
        except ValueError:
            raise BadRequest("Bad content-length") from None
        return 0

    async def http1_response_header(self, data: bytes, end_stream: bool) -> None:
        """Send a response's head: in one piece with a body that is whole, else as Sanic does."""
        response, headers = self.response, self.response.headers
        body = data or response.body
        first = STATUS_LINES.get(response.status)
        if (
            first is None
            or not body
            or not (end_stream or not data)
            or self.head_only
            or self.expecting_continue
            or self.protocol.access_log
        ):
            await Http.http1_response_header(self, data, end_stream)
            return
        headers["content-length"] = len(body)
        headers["connection"] = "keep-alive" if self.keep_alive else "close"
        headers.setdefault("content-type", response.content_type)
        fields = "\r\n".join([f"{name}: {value}" for name, value in headers.items()])
        ends = len(headers) - 1
        if (
            not fields.isascii()
            or fields.count("\n") != ends
            or fields.count("\r") != ends
            or "\0" in fields
        ):
            await Http.http1_response_header(self, data, end_stream)
            return
        self.response_func = None
        self.response_size = len(body)
        await self._send(b"%b%b\r\n\r\n%b" % (first, fields.encode(), body))
        self.stage = Stage.IDLE

    async def read(self) -> bytes | None:
        """The next piece of the request's body; raises ``PayloadTooLarge`` past the bound."""
        data = await super().read()
        max_body = getattr(self, "max_body", None)
        if max_body is not None and (self.request_bytes or 0) > max_body:
            self.keep_alive = False
            raise PayloadTooLarge("the request's body is larger than the service takes")
        return data

    @property
    def is_chunked(self) -> bool:
        """Whether the request's body, of which more may come, is chunked."""
        return str(self.request_body) == "chunked"

    @property
    def bytes_left(self) -> int:
        """Bytes of the body, or of its current chunk, that are still to be read."""
        return int(self.request_bytes_left or 0)

    @property
    def has_begun(self) -> bool:
        """Whether a response, or a WebSocket, is on its way already."""
        upgraded = getattr(self.protocol, "websocket", None) is not None
        return self.stage is not Stage.HANDLER or upgraded or self.protocol.transport is None

    def refuse_body(self) -> None:
        """The body of this request is not wanted: never ask for it, nor take it for a request."""
        if self.expecting_continue:
            self.expecting_continue = False
            self.request_body = None
            self.keep_alive = False
        else:
            self.max_body = None
            self.request_max_size = MAX_REFUSED_BODY

    def let_go(self) -> tuple[asyncio.Transport, bytes]:
        """Give up the transport; returns it and the bytes that came after the request.

        Sanic's task of this connection ends with its handler, and closes nothing.
        """
        protocol = self.protocol
        transport = protocol.transport
        if transport is None:
            raise RuntimeError("the connection has no transport to let go of")
        rest = bytes(self.recv_buffer)
        self.recv_buffer.clear()
        protocol.transport = None
        protocol.connections.discard(protocol)
        self.keep_alive = False
        self.request_body = None
        return transport, rest

    def abort(self) -> None:
        """Cut the connection: the client can tell that the response is not whole."""
        self.stage = Stage.FAILED
        self.keep_alive = False
        self.request_body = None
        self.protocol.abort()


MAX_REFUSED_BODY = 16 * 1024 * 1024
"""Bytes of an unwanted body that are read over, so that the connection stays of use."""


class Routed:
    """Mixed into a protocol class of Sanic, before it in the bases."""

    HTTP_CLASS = RoutedHttp

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.request_handler = self.app.ctx.router.handle_request  # type: ignore[attr-defined]
        self.request_class = RoutedRequest


class RouterProtocol(Routed, WebSocketProtocol):  # type: ignore[misc]
    """The protocol class to start Sanic with: ``app.run(protocol=RouterProtocol)``."""
