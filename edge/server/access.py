"""The access log: one entry for each plain request, and one for each WebSocket when it is over.

Comes in: requests and their answers, the ends of connections. Goes out: log entries with the path,
never the query, where tokens are; what looks like a secret in a path is blanked by ``edge.logs``.
Messages of a WebSocket do not pass here.
"""

from __future__ import annotations

import time

from sanic import HTTPResponse, Request

from edge import logs
from edge.transport.connection import Connection
from edge.transport.interface import Close, Receiver, Socket

MOST_PATH = 500
"""Characters of a path that are logged."""

_log = logs.get_logger("edge.access")


class AccessLog:
    """One worker's."""

    def answered(self, request: Request, response: HTTPResponse | None, began_s: float) -> None:
        """A request has its answer; None: it was sent in parts. Upgrades are logged at their end.

        ``began_s`` is ``time.monotonic()`` of when it was taken up.
        """
        size = 0
        if response is None:
            sent = None if request.stream is None else request.stream.response
            status = 200 if sent is None else sent.status
            size = int(getattr(request.ctx, "body_bytes", 0))
        else:
            status = response.status
            size = len(response.body or b"")
        if status != 101:
            self._entry(request, status, size, began_s)

    def failed(self, request: Request, status: int, began_s: float) -> None:
        """A request ended with an error that the server answers."""
        self._entry(request, status, 0, began_s)

    def watched(self, request: Request, receiver: Receiver) -> Receiver:
        """The receiver of an upgrade, whose end is logged."""
        return _Watched(receiver, _path(request))

    def _entry(self, request: Request, status: int, size: int, began_s: float) -> None:
        _log.info(
            "request",
            method=request.method,
            path=_path(request),
            status=status,
            bytes=0 if request.method == "HEAD" else size,
            duration_ms=_since_ms(began_s),
            remote=_remote(request),
        )


class _Watched:
    """A receiver whose connection is logged; messages go straight to it."""

    __slots__ = ("_began_s", "_path", "_receiver", "_socket", "message")

    def __init__(self, receiver: Receiver, path: str) -> None:
        self._receiver = receiver
        self._path = path
        self._began_s = time.monotonic()
        self._socket: Socket | None = None
        self.message = receiver.message

    def opened(self, socket: Socket) -> None:
        """The upgrade is done."""
        self._socket = socket
        self._receiver.opened(socket)

    def closed(self, close: Close) -> None:
        """The connection is over."""
        socket, self._socket = self._socket, None
        try:
            self._receiver.closed(close)
        finally:
            counted = socket if isinstance(socket, Connection) else None
            _log.info(
                "websocket",
                path=self._path,
                close_code=close.code,
                closed_by="client" if close.by_peer else "gateway",
                bytes_in=counted.bytes_in if counted else 0,
                bytes_out=counted.bytes_out if counted else 0,
                duration_ms=_since_ms(self._began_s),
                remote=socket.remote if socket else "",
            )


def _path(request: Request) -> str:
    return request.raw_url.decode("latin-1").partition("?")[0][:MOST_PATH]


def _remote(request: Request) -> str:
    connection = request.conn_info
    if connection is None or not connection.client_ip:
        return ""
    host = connection.client_ip
    return (
        f"[{host}]:{connection.client_port}" if ":" in host else f"{host}:{connection.client_port}"
    )


def _since_ms(began_s: float) -> float:
    return round((time.monotonic() - began_s) * 1000, 1)
