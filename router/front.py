"""The server's side: Sanic's parser, with requests that keep whatever target they came with.

``Routed`` is mixed into a protocol class of Sanic; the application it serves holds what handles
its requests as ``app.ctx.router``. Sanic's minor version is pinned: this file leans on the stages
of ``sanic.http.Http``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from httptools import HttpParserInvalidURLError, parse_url
from sanic import Request
from sanic.compat import Header
from sanic.exceptions import BadURL, PayloadTooLarge, URITooLong
from sanic.http import Http, Stage
from sanic.server.protocols.websocket_protocol import WebSocketProtocol

from router.decision import Decision, RequestHead

if TYPE_CHECKING:
    from router.registry import Namespace
    from router.router import Router
    from router.service import Service

BLANKS = " \t"


class RoutedRequest(Request):
    """A request whose target is kept as it came, also where Sanic cannot read it.

    ``raw_url`` stays what the client sent; ``path`` becomes the normalised one.
    """

    __slots__ = ("decision", "router")

    decision: Decision[Service]
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
        try:
            Request.__init__(
                self, url_bytes, headers, version, method, transport, app, head, stream_id
            )
        except (BadURL, URITooLong):
            Request.__init__(self, b"*", headers, version, method, transport, app, head, stream_id)
            self.raw_url = url_bytes

    def routing_head(self, *, with_proxy: bool) -> RequestHead:
        """What the decision is made of; what a proxy tells only if it may count."""
        headers = self.headers
        hosts = [host.strip(BLANKS) for host in headers.getall("host", ())]
        target = self.raw_url.decode("ascii")
        if not with_proxy:
            return RequestHead(self.method, target, hosts, self.version)
        return RequestHead(
            self.method,
            target,
            hosts,
            self.version,
            headers.get("x-forwarded-host"),
            headers.get("forwarded"),
            self.conn_info.client_ip if self.conn_info else None,
        )

    def retarget(self, decision: Decision[Service], told: str) -> bool:
        """Show the service the path of the decision; False when it is none that can be read.

        ``told`` is the target as it came.
        """
        self.decision = decision
        target = decision.path + decision.query
        if target == told and self._parsed_url.path != b"*":
            return True
        try:
            self._parsed_url = parse_url(target.encode("ascii"))
        except HttpParserInvalidURLError:
            return target == "*"
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
    """Sanic's HTTP connection, with a bound for a service's request bodies."""

    __slots__ = ("max_body",)

    max_body: int | None
    """Of the request's service; unset before the first one."""

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
