"""Responses of services outside Sanic, written as they are: nothing added but the framing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus

from sanic.http import Stage

from router.errors import ServiceFailed
from router.front import RoutedHttp, RoutedRequest

Headers = Iterable[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"transfer-encoding",
        b"upgrade",
    )
)
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[^\r\n\0]*")


class RawResponse:
    """One response on a Sanic connection, piece by piece, each under backpressure."""

    def __init__(self, request: RoutedRequest) -> None:
        self._exchange: RoutedHttp = request.exchange
        self._version = request.version
        self._is_head = request.method == "HEAD"
        self._chunked = False
        self._left: int | None = 0
        """Bytes of the body that are still to come; None when nobody knows."""
        self._bodiless = False
        self.started = False
        self.finished = False

    async def start(self, status: int, reason: bytes, headers: Headers) -> None:
        """Send the head. Raises ``ServiceFailed`` for one that is no HTTP, and sends nothing."""
        if self.started:
            raise ServiceFailed("the service started its response twice")
        if not 200 <= status <= 999:
            raise ServiceFailed(f"the service answered with the status {status}")
        exchange = self._exchange
        if exchange.expecting_continue:
            exchange.refuse_body()
        lines = [b"HTTP/1.1 %d %s" % (status, reason or _reason(status))]
        length: int | None = None
        for name, value in headers:
            folded = name.lower()
            if folded in HOP_BY_HOP:
                continue
            lines.append(header_line(name, value))
            if folded == b"content-length":
                if not value.isdigit() or length not in (None, int(value)):
                    raise ServiceFailed("the service sent no valid Content-Length")
                length = int(value)
        self._bodiless = self._is_head or status in (204, 304)
        self._left = length
        if length is None and not self._bodiless:
            if self._version == "1.0":
                exchange.keep_alive = False
            else:
                self._chunked = True
                lines.append(b"Transfer-Encoding: chunked")
        if not exchange.keep_alive:
            lines.append(b"Connection: close")
        elif self._version == "1.0":
            lines.append(b"Connection: keep-alive")
        self.started = True
        exchange.stage = Stage.RESPONSE
        await exchange._send(b"\r\n".join(lines) + b"\r\n\r\n")

    async def write(self, data: bytes) -> None:
        """Send a piece of the body. Raises ``ServiceFailed`` for more than was announced."""
        if not data or self._bodiless:
            return
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        elif self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise ServiceFailed("the service sent more than its Content-Length")
        await self._exchange._send(data)

    async def finish(self, trailers: Headers = ()) -> None:
        """Send the end; trailers go only where the response is chunked.

        Raises ``ServiceFailed`` when less was sent than announced.
        """
        if self.finished:
            return
        if self._left and not self._bodiless:
            raise ServiceFailed("the service sent less than its Content-Length")
        self.finished = True
        if self._chunked:
            fields = b"".join(header_line(name, value) + b"\r\n" for name, value in trailers)
            await self._exchange._send(b"0\r\n" + fields + b"\r\n")
        self._exchange.stage = Stage.IDLE


def header_line(name: bytes, value: bytes) -> bytes:
    """``name: value``. Raises ``ServiceFailed`` for what would be more than one field."""
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise ServiceFailed(f"{name!r} is no valid header, or its value is none")
    return name + b": " + value


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b""
