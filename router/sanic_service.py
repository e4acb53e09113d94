"""Services that are Sanic applications or blueprints in this process."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from sanic import Blueprint, HTTPResponse, Request, Sanic
from sanic.exceptions import SanicException
from sanic.handlers import ErrorHandler
from sanic.http import Stage

from router.errors import ServiceFailed
from router.front import RoutedHttp, RoutedRequest
from router.service import Limits, Service

_numbers: Final = itertools.count(1)
_uses: Final[dict[Sanic[Any, Any], int]] = {}
"""How many services each application is at the moment: replaced by itself, it goes on."""


class SanicService(Service):
    """A Sanic application, asked in the connection's own task, without HTTP between.

    Its listeners of the server's start and stop run with the service's; those of the main process
    do not. An error that it has no handler for is the router's to answer.
    """

    def __init__(
        self,
        app: Sanic[Any, Any] | Blueprint,
        limits: Limits | None = None,
        tags: tuple[str, ...] = (),
    ) -> None:
        super().__init__(limits, tags)
        self._owned = isinstance(app, Blueprint)
        if isinstance(app, Blueprint):
            blueprint = app
            app = Sanic(f"{blueprint.name}-{next(_numbers)}", configure_logging=False)
            app.blueprint(blueprint)
        self.app = app

    async def start(self) -> None:
        """Finish the application's routes and run its listeners."""
        app = self.app
        _uses[app] = _uses.get(app, 0) + 1
        if _uses[app] > 1:
            return
        try:
            if not app.router.finalized:
                app.signalize(allow_fail_builtin=False)
                app.finalize()
            _leave_failures(app)
            _contain_sockets(app)
            app.state.is_started = app.state.is_running = True
            await self._announce("server.init.before")
            await self._announce("server.init.after")
        except (Exception, SystemExit) as error:
            _released(app)
            raise ServiceFailed(
                f"the Sanic application {app.name!r} cannot start: {error}"
            ) from error

    async def stop(self) -> None:
        """Run the application's listeners of the server's stop."""
        if not _released(self.app):
            return
        await self._announce("server.shutdown.before", reverse=True)
        await self._announce("server.shutdown.after", reverse=True)
        for task in [*self.app.websocket_tasks, *self.app.tasks]:
            task.cancel()
        self.app.state.is_started = self.app.state.is_running = False
        if self._owned:
            Sanic.unregister_app(self.app)

    def handle(self, request: RoutedRequest) -> Awaitable[None]:
        """Hand the request to the application."""
        app = request.app = self.app
        if (exchange := request.stream) is not None:
            exchange.request_max_size = app.config.REQUEST_MAX_SIZE
        return app.handle_request(request)

    def check_end(self, exchange: RoutedHttp) -> None:
        """Sanic tells of some failures by leaving a response open, or none."""
        if exchange.stage is Stage.RESPONSE:
            raise ServiceFailed("the service failed within its response")
        if exchange.stage is Stage.HANDLER and not exchange.upgrade_websocket:
            raise ServiceFailed("Handler produced no response")

    @property
    def binding(self) -> Any:
        """What the application keeps as ``app.ctx.binding``."""
        return getattr(self.app.ctx, "binding", None)

    async def _announce(self, event: str, *, reverse: bool = False) -> None:
        await self.app.dispatch(
            event,
            fail_not_found=False,
            reverse=reverse,
            inline=True,
            context={"app": self.app, "loop": asyncio.get_running_loop()},
        )


def _released(app: Sanic[Any, Any]) -> bool:
    """One service less uses an application; whether it was the last."""
    _uses[app] = _uses.get(app, 1) - 1
    if _uses[app]:
        return False
    del _uses[app]
    return True


def _contain_sockets(app: Sanic[Any, Any]) -> None:
    """Handlers of WebSockets have tasks of their own, in which ``SystemExit`` ends the event loop.

    Make it an error like any other.
    """
    for route in app.router.routes:
        handler = route.handler
        if not isinstance(handler, partial) or not hasattr(handler, "is_websocket"):
            continue
        inner, *others = handler.args
        if not hasattr(inner, "is_contained"):
            contained = partial(handler.func, _contained(inner), *others, **handler.keywords)
            vars(contained).update(vars(handler))
            route.handler = contained


def _contained(handler: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return await handler(*args, **kwargs)
        except SystemExit as error:
            raise ServiceFailed(f"the service wants to end the process: {error}") from error

    run.is_contained = True  # type: ignore[attr-defined]
    return run


def _leave_failures(app: Sanic[Any, Any]) -> None:
    """Let an error that the application does not answer itself reach the router.

    Sanic would answer it with a page of its own. An application's own handlers stay, and so does
    an error handler class that answers by itself.
    """
    handler = app.error_handler
    if type(handler).default is not ErrorHandler.default or handler.lookup(Exception()):
        return
    handler.cached_handlers.pop((Exception, None), None)

    def unhandled(request: Request, error: Exception) -> HTTPResponse:
        if isinstance(error, SanicException):
            return handler.default(request, error)
        if not isinstance(request, RoutedRequest):
            raise error
        return request.router.failure(request, error)

    handler.add(Exception, unhandled)
