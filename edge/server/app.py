"""The Sanic application of one worker.

Sanic gives the HTTP parser, the shared listening socket and the processes. Routing is ours: every
request goes to one function, because an upgrade and a plain GET may share a path.
"""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

from sanic import HTTPResponse, Request, Sanic
from sanic.config import Config
from sanic.constants import HTTP_METHODS
from sanic.exceptions import BadURL, MethodNotAllowed, NotFound, SanicException
from sanic.response import text
from sanic.server.protocols.websocket_protocol import WebSocketProtocol

from edge import logs
from edge.api.http import LONGEST_DEADLINE_S
from edge.server.boot import Boot
from edge.server.door import WorkerLoopPolicy
from edge.server.settings import RoutingSettings
from edge.server.worker import Worker
from edge.transport.lane import LaneProtocol
from router.front import Routed

APP_NAME = "edgescribe"
MAX_BODY_BYTES = 64 * 1024
HEADER_DEADLINE_S = 10
KEEP_ALIVE_S = 15
ANSWER_DEADLINE_S = round(LONGEST_DEADLINE_S) + 60
"""Beyond those of the endpoints, and the time that a body may take."""

_log = logs.get_logger("edge.server.app")


def create_app(boot: Boot) -> Sanic[Config, SimpleNamespace]:
    """The application; called once in the main process and once in every worker."""
    server = boot.settings.server
    logs.configure(server.log_level, server.log_format)
    app: Sanic[Config, SimpleNamespace] = Sanic(
        APP_NAME,
        config=_config(),
        configure_logging=False,
        inspector=False,
        request_class=_AnyTarget,
    )
    worker = Worker(app, boot)
    app.ctx.worker = worker
    asyncio.set_event_loop_policy(WorkerLoopPolicy())

    async def everything(request: Request, path: str = "") -> HTTPResponse | None:
        if (access := worker.access) is None:
            return await worker.answer(request)
        began_s = time.monotonic()
        try:
            response = await worker.answer(request)
        except Exception as error:
            access.failed(request, _status_of(error), began_s)
            raise
        access.answered(request, response, began_s)
        return response

    for uri in ("/", "/<path:path>"):
        app.add_route(
            everything, uri, methods=HTTP_METHODS, name=f"everything{len(uri)}", ignore_body=True
        )

    async def unrouted(request: Request, error: Exception) -> HTTPResponse | None:
        return await everything(request)

    async def failed(request: Request, error: Exception) -> HTTPResponse:
        if (status := _status_of(error)) < 500:
            return text(str(error), status=status)
        _log.error("a request failed", path=request.path, exc_info=error)
        return text("Internal Server Error", status=500)

    app.error_handler.add(NotFound, unrouted)
    app.error_handler.add(MethodNotAllowed, unrouted)
    app.error_handler.add(Exception, failed)

    app.register_middleware(worker.dress, "response")
    app.register_listener(worker.before_start, "before_server_start")
    app.register_listener(worker.after_start, "after_server_start")
    app.register_listener(worker.before_stop, "before_server_stop")
    return app


def _status_of(error: Exception) -> int:
    """What a request that ended with this error is answered with."""
    status = error.status_code if isinstance(error, SanicException) else 500
    return status if status < 500 else 500


class _AnyTarget(Request):
    """A request whose target is no URL is answered like one for nothing that exists.

    Sanic cannot even answer it with an error: making that answer's request fails again.
    """

    __slots__ = ()

    def __init__(self, url_bytes: bytes, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(url_bytes, *args, **kwargs)
        except BadURL:
            super().__init__(b"*", *args, **kwargs)


class Protocol(LaneProtocol):
    """Shows the worker its connections: to take no more than its share, and to close them."""

    __slots__ = ()

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)  # type: ignore[no-untyped-call]
        self.app.ctx.worker.connected(self.connections)


class RoutedProtocol(Routed, Protocol, WebSocketProtocol):  # type: ignore[misc]
    """The same behind the router, whose services may have Sanic's own WebSockets."""


def protocol_of(settings: RoutingSettings) -> type[Protocol]:
    """What Sanic is started with."""
    return RoutedProtocol if settings.is_on else Protocol


def _config() -> Config:
    config = Config(env_prefix="")
    config.REQUEST_MAX_SIZE = MAX_BODY_BYTES
    config.REQUEST_TIMEOUT = HEADER_DEADLINE_S
    config.RESPONSE_TIMEOUT = ANSWER_DEADLINE_S
    config.KEEP_ALIVE_TIMEOUT = KEEP_ALIVE_S
    config.GRACEFUL_SHUTDOWN_TIMEOUT = 1.0
    config.ACCESS_LOG = False
    config.MOTD = False
    config.FALLBACK_ERROR_FORMAT = "text"
    return config
