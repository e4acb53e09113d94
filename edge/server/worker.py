"""One worker: its gateway, its row on the board, and its orderly end.

A stop goes: no new work, every recognizer flushed and its last transcripts delivered, clients
closed 1001, then the server. All of it happens before Sanic's own shutdown begins, which closes
sockets first and asks later.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import platform
import signal
from collections.abc import Collection
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from sanic import HTTPResponse, Request, Sanic
from sanic.config import Config
from sanic.response import BaseHTTPResponse

from _native import opus
from edge import logs, metrics
from edge.api.answers import Answers
from edge.api.plain import Health, PlainHttp, Readiness
from edge.api.web import WebFiles
from edge.auth.guard import Guard
from edge.compose import (
    build_answers,
    build_deliveries,
    build_gateway,
    build_guard,
    build_health,
    build_meetings,
    build_recognizers,
    build_store,
    build_telemetry,
    build_upkeep,
)
from edge.dispatching.deliveries import Deliveries
from edge.errors import EdgescribeError
from edge.ingest.interface import Refusal
from edge.meeting.meetings import Meetings
from edge.parent import end_with_parent
from edge.server.access import AccessLog
from edge.server.board import BEAT_INTERVAL_S, Totals, WorkerBoard
from edge.server.boot import Boot
from edge.server.door import LOOK_AGAIN_S, Door, WorkerLoop, steps_back
from edge.server.entrance import Entrance
from edge.server.memory import releaser
from edge.server.panorama import Panorama
from edge.server.process import STOP_SIGNALS, release_stop_signals
from edge.server.routing import build_router, lookup_in
from edge.session.gateway import Acceptance, Gateway
from edge.session.store.interface import SessionStore
from edge.session.upkeep import Upkeep
from edge.transport.lane import LaneProtocol, accept, handshake_fault, refuse
from edge.transport.registry import Lanes
from edge.version import VERSION
from router.errors import RouterError
from router.router import Router

if TYPE_CHECKING:
    from edge.telemetry.otlp import Telemetry

FLUSH_EVERY_BEATS = 4
RELEASE_EVERY_BEATS = 40
CLOSE_DEADLINE_S = 3.0
"""For the closing handshakes after a drain."""
ALARM_AFTER_S = 10.0
"""Past the drain's deadline: the kernel ends a worker that hangs, should nobody else."""
FULL = 1 << 40
"""The load of a worker that can take no more."""
STOPPING = "The gateway is stopping"

_log = logs.get_logger("edge.server.worker")


class Worker:
    """Owns everything of a worker process between its start and its stop."""

    def __init__(self, app: Sanic[Config, Any], boot: Boot) -> None:
        self._app = app
        self._boot = boot
        self.access = AccessLog() if boot.settings.server.access_log else None
        self._plain = PlainHttp(self)
        self._web = WebFiles()
        self._gateway: Gateway | None = None
        self._store: SessionStore | None = None
        self._upkeep: Upkeep | None = None
        self._meetings: Meetings | None = None
        self._answers: Answers | None = None
        self._health: Health | None = None
        self._deliveries: Deliveries | None = None
        self._guard: Guard | None = None
        self._entrance = Entrance(None, ())
        self._telemetry: Telemetry | None = None
        self._panorama: Panorama | None = None
        self._lanes: Lanes | None = None
        self._router: Router | None = None
        self._draining = False
        self._stopping: asyncio.Task[None] | None = None
        self._beats: asyncio.Task[None] | None = None
        self._door: Door | None = None
        self._connections: Collection[LaneProtocol] = ()
        self._listen_again: asyncio.TimerHandle | None = None

    async def before_start(self, app: Sanic[Config, Any]) -> None:
        """Build the gateway before the first connection can be accepted."""
        end_with_parent(self._boot.parent, signal.SIGTERM)
        self._index = int(app.m.name.split("-")[2])
        self._board = WorkerBoard(app.shared_ctx.board_rows, app.shared_ctx.board_started)
        settings = self._boot.settings
        try:
            if started := build_telemetry(settings, self._index):
                self._telemetry = started
                started.start()
            store = build_store(settings)
            await store.open()
            self._store = store
            recognizers = build_recognizers(settings, self._boot)
            self._guard = build_guard(settings, store)
            if settings.routing.is_on:
                router = build_router(settings.routing, app, store, self._guard)
                self._router = app.ctx.router = router
            lookup = lookup_in(self._router) if self._router else None
            self._deliveries = build_deliveries(settings, store, lookup)
            meetings = build_meetings(settings, store, recognizers, self._deliveries)
            gateway = build_gateway(settings, recognizers, store, meetings, self._deliveries)
            self._entrance = Entrance(self._guard, settings.auth.allowed_origins)
            await meetings.start()
            await gateway.start()
            if self._guard:
                self._guard.start()
            if self._router:
                await self._router.start()
            if self._deliveries:
                self._deliveries.start()
        except (EdgescribeError, RouterError) as error:
            if self._store:
                await self._store.close()
            _log.error("the worker cannot start", reason=str(error))
            raise SystemExit(1) from error
        self._gateway = gateway
        self._meetings = meetings
        self._upkeep = build_upkeep(settings, store, gateway.stability, meetings)
        self._upkeep.start()
        self._health = build_health(settings)
        folder = Path(self._boot.run_dir)
        panorama = Panorama(self._board, self._index, folder, gateway.tracks)
        self._panorama = panorama
        self._answers = build_answers(
            settings, store, self._upkeep, meetings, gateway, panorama.collect
        )
        self._lanes = Lanes(settings.lane)
        metrics.FLUSHER.watch(self._lanes.counts, metrics.LANE_COUNTERS)
        metrics.BUILD_INFO.labels(VERSION, platform.python_version(), opus.version()).set(1)

    async def after_start(self, app: Sanic[Config, Any]) -> None:
        """Take work: from now on the board shows this worker, and signals stop it."""
        loop = asyncio.get_running_loop()

        def on_signal(number: int, frame: FrameType | None) -> None:
            # One may come while the interpreter ends.
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._begin_stop)

        for number in STOP_SIGNALS:
            # Sanic's handler would stop the loop; the loop's own registry lets the second one kill.
            loop.remove_signal_handler(number)
            signal.signal(number, on_signal)
        release_stop_signals()
        # A full collection visits all that was loaded so far, for tens of milliseconds, in vain.
        gc.collect()
        gc.freeze()
        self._beats = loop.create_task(self._keep_beating())
        self._door = loop.door if isinstance(loop, WorkerLoop) else None

    def connected(self, connections: Collection[LaneProtocol]) -> None:
        """A connection was accepted; ``connections`` are those that are open."""
        self._connections = connections
        self._take_share()

    def _take_share(self) -> None:
        """Listen, or leave the next connections to workers that carry less."""
        door, gateway = self._door, self._gateway
        if door is None or gateway is None or self._draining:
            return
        counts = gateway.counts()
        limits = self._boot.settings.session
        load = len(self._connections) + counts.tracks
        sessions = counts.active + counts.detached
        if sessions >= limits.max_sessions or counts.tracks >= limits.max_tracks:
            load = FULL
        self._board.carry(self._index, load)
        others = self._board.loads_beside(self._index)
        if steps_back(load, others, listening=door.is_open):
            door.close()
            if self._listen_again is None:
                loop = asyncio.get_running_loop()
                self._listen_again = loop.call_later(LOOK_AGAIN_S, self._look_again)
        else:
            door.open()

    def _look_again(self) -> None:
        self._listen_again = None
        self._take_share()

    async def before_stop(self, app: Sanic[Config, Any]) -> None:
        """Sanic is about to stop; drain if that did not happen yet, whatever the reason."""
        if self._beats:
            self._beats.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._beats
        if self._listen_again:
            self._listen_again.cancel()
        if self._panorama:
            await self._panorama.stop()
        if self._gateway:
            await self._drain()
            if self._meetings:
                await self._meetings.drain()
            await self._gateway.stop()
        if self._deliveries:
            await self._deliveries.stop()
        if self._guard:
            await self._guard.stop()
        if self._router:
            await self._router.stop()
        if self._upkeep:
            await self._upkeep.stop()
        if self._meetings:
            await self._meetings.stop()
        if self._store:
            await self._store.close()
        if self._door:
            await self._door.shut()
        metrics.FLUSHER.flush()
        if self._telemetry:
            await self._telemetry.stop()
        self._board.clear(self._index)

    def _begin_stop(self) -> None:
        """Start the one stop of this worker; later signals change nothing."""
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._stop())

    async def _stop(self) -> None:
        await self._drain()
        self._app.stop(terminate=False)

    async def _drain(self) -> None:
        if self._draining or not self._gateway:
            return
        self._draining = True
        self._publish()
        if self._answers:
            await self._answers.drain()
        deadline_s = self._boot.settings.server.drain_deadline_s
        signal.setitimer(signal.ITIMER_REAL, deadline_s + CLOSE_DEADLINE_S + ALARM_AFTER_S)
        try:
            await asyncio.wait_for(self._gateway.drain(deadline_s), deadline_s + 1.0)
        except TimeoutError:
            _log.error("the drain took too long", deadline_s=deadline_s)
        except Exception:
            _log.exception("the drain failed")
        await self._close_connections()

    async def _close_connections(self) -> None:
        """Say 1001 to every client and wait for their goodbyes, then let plain HTTP go."""
        if self._lanes:
            self._lanes.close_all(1001, STOPPING)
            await self._lanes.wait_closed(CLOSE_DEADLINE_S)
        for connection in tuple(self._connections):
            connection.close_if_idle()

    async def answer(self, request: Request) -> HTTPResponse | None:
        """Answer a request, or make its connection a WebSocket; None: it has been answered."""
        if not _wants_websocket(request):
            return await self._entrance.plain(request) or await self._plainly(request)
        if fault := handshake_fault(request):
            metrics.UPGRADES_REFUSED.labels(str(fault.status)).inc()
            return fault
        verdict = await self._admit(request)
        if isinstance(verdict, Refusal) or self._lanes is None:
            verdict = verdict if isinstance(verdict, Refusal) else Refusal(503, STOPPING)
            metrics.UPGRADES_REFUSED.labels(str(verdict.status)).inc()
            return refuse(request, verdict.status, verdict.body, verdict.retry_after_s)
        receiver = verdict.receiver
        return accept(
            request,
            self.access.watched(request, receiver) if self.access else receiver,
            lanes=self._lanes,
            limits=verdict.limits,
            subprotocol=verdict.subprotocol,
        )

    async def _plainly(self, request: Request) -> HTTPResponse | None:
        target = request.raw_url.decode("latin-1")
        if self._answers is not None and self._answers.serves(target):
            return await self._answers.answer(request, target)
        if self._web.serves(target):
            return self._web.answer(request, target)
        accepted = request.headers.get("accept", "")
        return await self._plain.answer(request.method, target, accepted)

    async def dress(self, request: Request, response: BaseHTTPResponse) -> HTTPResponse | None:
        """Put the headers for browsers on an answer; None: it is the same."""
        self._entrance.finish(request, response)
        return None

    def readiness(self) -> Readiness:
        """Whether this worker, and with it the gateway, takes new work."""
        if self._draining:
            return Readiness(ready=False, reason="stopping")
        if not self._board.is_started:
            return Readiness(ready=False, reason="starting")
        limits, totals = self._boot.settings.session, self._board.totals()
        if (
            totals.tracks >= limits.max_tracks * totals.workers
            or totals.active + totals.detached >= limits.max_sessions * totals.workers
        ):
            return Readiness(ready=False, reason="full")
        return Readiness(ready=True)

    def health(self) -> Health | None:
        """What meetings are recognized with, once that is known."""
        return self._health

    async def measure(self) -> None:
        """Bring the stability of all connections up to date in the metrics."""
        if self._upkeep is not None:
            await self._upkeep.figures.measure()

    def totals(self) -> Totals:
        """What all workers carry."""
        self._publish()
        return self._board.totals()

    async def _admit(self, request: Request) -> Acceptance | Refusal:
        if self._draining or not self._gateway:
            return Refusal(503, STOPPING)
        return await self._entrance.upgrade(request, self._gateway)

    async def _keep_beating(self) -> None:
        """Show this worker on the board, flush metrics, give unused memory back, and measure how
        busy the loop is."""
        loop = asyncio.get_running_loop()
        faults = logs.Repeats(_log)
        release_memory = releaser()
        for beat in itertools.count():
            try:
                self._publish()
                self._take_share()
                if self._panorama:
                    self._panorama.beat()
                if beat % FLUSH_EVERY_BEATS == 0:
                    metrics.FLUSHER.flush()
                    metrics.TASKS.set(len(asyncio.all_tasks()))
                if beat % RELEASE_EVERY_BEATS == 0:
                    release_memory()
            except Exception as error:
                faults.note("a worker could not report", level="error", exc_info=error)
            due_s = loop.time() + BEAT_INTERVAL_S
            await asyncio.sleep(BEAT_INTERVAL_S)
            metrics.LOOP_DELAY.observe(max(0.0, loop.time() - due_s))

    def _publish(self) -> None:
        if not self._gateway:
            return
        counts = self._gateway.counts()
        self._board.beat(
            self._index,
            pid=os.getpid(),
            active=counts.active,
            detached=counts.detached,
            tracks=counts.tracks,
            draining=self._draining,
        )
        for provider, is_open in self._gateway.breakers().items():
            metrics.BREAKER_OPEN.labels(provider).set(is_open)
        metrics.SESSIONS_ACTIVE.set(counts.active)
        metrics.SESSIONS_DETACHED.set(counts.detached)
        metrics.PARTICIPANTS_ACTIVE.set(counts.tracks)


def _wants_websocket(request: Request) -> bool:
    upgrades = request.headers.get("upgrade", "").lower().split(",")
    return request.method == "GET" and any(name.strip() == "websocket" for name in upgrades)
