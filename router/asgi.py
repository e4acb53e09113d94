"""Services that are ASGI applications in this process: HTTP, WebSocket and lifespan.

ASGI 3.0, spec version 2.4, with the extension ``http.response.trailers``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

import structlog

from router.asgi_socket import AsgiSocket
from router.errors import ServiceFailed
from router.front import RoutedRequest
from router.service import Limits, Service
from router.writing import RawResponse

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

VERSIONS = {"version": "3.0", "spec_version": "2.4"}
LIFESPAN_DEADLINE_S = 30.0
MAX_LEFT = 1000

_log = structlog.get_logger("router.asgi")


class AsgiService(Service):
    """An ASGI application. Each request is a task of its own, cancelled when the client leaves.

    What it does after its response has ended goes on until the service stops; of more than
    ``MAX_LEFT`` of these tasks, the oldest is cancelled.
    """

    def __init__(
        self, app: AsgiApp, limits: Limits | None = None, tags: tuple[str, ...] = ()
    ) -> None:
        super().__init__(limits, tags)
        self.app = app
        self._state: dict[str, Any] = {}
        self._lifespan: _Lifespan | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._left: dict[asyncio.Task[None], None] = {}
        """Those whose response has ended, the oldest first."""

    async def start(self) -> None:
        """Run the application's startup, if it has one."""
        self._lifespan = _Lifespan(self.app, self._state)
        await self._lifespan.start()

    async def stop(self) -> None:
        """Cancel what still runs and run the application's shutdown."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._lifespan is not None:
            await self._lifespan.stop()

    async def handle(self, request: RoutedRequest) -> None:
        """Run the application for a request."""
        if request.is_upgrade:
            socket = AsgiSocket(request)
            if socket.fault is None:
                scope = self._scope(request, "websocket")
                scope["subprotocols"] = socket.offered
                try:
                    await self._run(scope, socket.receive, socket.send, socket.over)
                except BaseException:
                    socket.fail()
                    raise
                await socket.end()
                return
        exchange = _HttpExchange(request)
        scope = self._scope(request, "http")
        scope["method"] = request.method
        await self._run(scope, exchange.receive, exchange.send, exchange.over)
        if not exchange.response.finished:
            raise ServiceFailed("the service ended before its response did")

    @property
    def binding(self) -> Any:
        """The application's attribute ``binding``, or the application itself."""
        return getattr(self.app, "binding", self.app)

    async def _run(self, scope: Scope, receive: Receive, send: Send, over: asyncio.Event) -> None:
        """Run the application until it ends or its response has; raises what it raised."""
        task = asyncio.ensure_future(_call(self.app, scope, receive, send))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        waiting = asyncio.ensure_future(over.wait())
        try:
            await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            task.add_done_callback(self._ended)
            raise
        finally:
            waiting.cancel()
        if task.done():
            task.result()
            return
        task.add_done_callback(self._ended)
        self._left[task] = None
        if len(self._left) > MAX_LEFT:
            oldest = next(iter(self._left))
            del self._left[oldest]
            oldest.cancel()
            _log.warning("an ASGI application leaves tasks behind", cancelled_after=MAX_LEFT)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._left.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("an ASGI application failed after its response", exc_info=error)

    def _scope(self, request: RoutedRequest, kind: str) -> Scope:
        decision = request.decision
        info = request.conn_info
        secure = bool(info and info.ssl)
        socket = kind == "websocket"
        return {
            "type": kind,
            "asgi": VERSIONS,
            "http_version": request.version,
            "scheme": ("wss" if secure else "ws") if socket else ("https" if secure else "http"),
            "path": unquote_to_bytes(decision.path).decode("utf-8", "replace"),
            "raw_path": decision.path.encode("ascii"),
            "query_string": decision.query[1:].encode("ascii"),
            "root_path": "",
            "headers": [
                (name.encode(errors="surrogateescape"), value.encode(errors="surrogateescape"))
                for name, value in request.headers.items()
            ],
            "client": (info.client_ip, info.client_port) if info and info.client_ip else None,
            "server": (info.server, info.server_port) if info and info.server else None,
            "state": self._state.copy(),
            "extensions": {"websocket.http.response" if socket else "http.response.trailers": {}},
            "router": {
                "target": request.raw_url,
                "service": decision.service,
                "environment": decision.environment,
                "namespace": request.namespace if decision.environment else None,
            },
        }


async def _call(app: AsgiApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run an application, which may fail but not end the process."""
    try:
        await app(scope, receive, send)
    except SystemExit as error:
        raise ServiceFailed(f"the service wants to end the process: {error}") from error


class _HttpExchange:
    """The two functions of one HTTP request."""

    def __init__(self, request: RoutedRequest) -> None:
        self._stream = request.exchange
        self._stream.request_max_size = float("inf")
        self.response = RawResponse(request)
        self.over = asyncio.Event()
        self._head: Event | None = None
        self._trailers: list[tuple[bytes, bytes]] = []
        self._body_ended = False
        self._took_body = False

    async def receive(self) -> Event:
        """``http.request`` for each piece of the body, then ``http.disconnect``."""
        if not self._took_body:
            stream = self._stream
            data = await stream.read() if stream.request_body and not self.over.is_set() else None
            more = bool(stream.request_body) and (stream.is_chunked or stream.bytes_left > 0)
            if not more:
                self._took_body = True
                if stream.request_body:
                    await stream.read()
            return {"type": "http.request", "body": data or b"", "more_body": more}
        await self.over.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: Event) -> None:
        """The response's events; raises ``OSError`` once the response is over."""
        if self.over.is_set():
            raise OSError("the response is over")
        kind, response = event["type"], self.response
        if kind == "http.response.start":
            self._head = event
            await response.start(event["status"], b"", event.get("headers", ()))
        elif kind == "http.response.body" and self._head is not None and not self._body_ended:
            await response.write(event.get("body", b""))
            if not event.get("more_body", False):
                self._body_ended = True
                if not self._head.get("trailers", False):
                    await self._finish()
        elif kind == "http.response.trailers" and self._body_ended:
            self._trailers += event.get("headers", ())
            if not event.get("more_trailers", False):
                await self._finish()
        else:
            raise ServiceFailed(f"the service sent {kind!r} out of turn")

    async def _finish(self) -> None:
        await self.response.finish(self._trailers)
        self.over.set()


class _Lifespan:
    """The startup and the shutdown of an application; one that knows neither does without."""

    def __init__(self, app: AsgiApp, state: dict[str, Any]) -> None:
        self._app = app
        self._state = state
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stopped = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises ``ServiceFailed`` when the startup fails."""
        self._events.put_nowait({"type": "lifespan.startup"})
        self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            async with asyncio.timeout(LIFESPAN_DEADLINE_S):
                await self._started
        except TimeoutError:
            self._task.cancel()
            raise ServiceFailed("the application's startup takes too long") from None

    async def stop(self) -> None:
        """Let the application end, for some time."""
        task = self._task
        if task is None or task.done():
            return
        self._events.put_nowait({"type": "lifespan.shutdown"})
        await asyncio.wait((task,), timeout=LIFESPAN_DEADLINE_S)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": VERSIONS, "state": self._state}
        try:
            await _call(self._app, scope, self._events.get, self._send)
        except Exception as error:
            if self._started.done():
                _log.error("an ASGI application's lifespan failed", exc_info=error)
        if not self._started.done():
            self._started.set_result(None)

    async def _send(self, event: Event) -> None:
        if event["type"] == "lifespan.startup.complete" and not self._started.done():
            self._started.set_result(None)
        elif event["type"] == "lifespan.startup.failed" and not self._started.done():
            reason = event.get("message") or "without a reason"
            self._started.set_exception(ServiceFailed(f"the application did not start: {reason}"))
