"""Answers to plain HTTP requests.

``/health`` says the process is alive and, to those who accept JSON, what meetings are recognized
with; ``/ready`` whether it should be sent new work, ``/status`` what all workers carry,
``/metrics`` what they measured. Paths match exactly: ``/health?x`` is not ``/health``. Everything
else is told to open a WebSocket.
"""

from __future__ import annotations

import asyncio
from typing import Literal, Protocol

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from sanic import HTTPResponse
from sanic.response import raw, text

from edge.api.answers import JSON
from edge.meeting.records import ROLES, Role
from edge.server.board import Totals

READABLE_METHODS = ("GET", "HEAD")
NOT_A_WEBSOCKET = "Upgrade Required: Expected WebSocket connection"

_json = msgspec.json.Encoder()


class Readiness(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether new work is welcome; the body of ``/ready``."""

    ready: bool
    reason: str = ""
    """Why not: starting, stopping or full."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """``/health`` as recorders' scripts know it; the names of the first members are fixed."""

    status: str = "ok"
    app: str = "interview-feedback-gateway"
    durable_object: str = "MEETING_SESSION"
    r2_bucket: str = "RESULT_BUCKET"
    asr_enabled: bool
    asr_realtime_enabled: bool
    asr_mode: Literal["realtime", "windowed"]
    asr_model: str
    asr_window_seconds: int
    asr_hop_seconds: int
    stream_roles: tuple[Role, ...] = ROLES


class Serving(Protocol):
    """What the answers are made from: the worker that was asked."""

    def readiness(self) -> Readiness: ...

    def totals(self) -> Totals: ...

    def health(self) -> Health | None: ...

    async def measure(self) -> None:
        """Bring the metrics up to date that are worked out only when somebody asks."""
        ...


class PlainHttp:
    """Answers for one worker; renders one set of metrics at a time."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._rendering = asyncio.Lock()

    async def answer(self, method: str, target: str, accepted: str = "") -> HTTPResponse:
        """The response to ``method target``; ``target`` is the request's path and query as sent,
        ``accepted`` its ``Accept``."""
        if method in READABLE_METHODS:
            match target:
                case "/health":
                    health = self._serving.health() if "application/json" in accepted else None
                    return text("OK") if health is None else _structured(health, 200, JSON)
                case "/ready":
                    readiness = self._serving.readiness()
                    return _structured(readiness, 200 if readiness.ready else 503)
                case "/status":
                    return _structured(self._serving.totals(), 200)
                case "/metrics":
                    return await self._metrics()
        return text(NOT_A_WEBSOCKET, status=426, headers={"Upgrade": "websocket"})

    async def _metrics(self) -> HTTPResponse:
        async with self._rendering:
            await self._serving.measure()
            body = await asyncio.to_thread(_render_metrics)
        return raw(body, content_type=CONTENT_TYPE_LATEST)


def _structured(
    body: msgspec.Struct, status: int, content_type: str = "application/json"
) -> HTTPResponse:
    return raw(_json.encode(body), status=status, content_type=content_type)


def _render_metrics() -> bytes:
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return generate_latest(registry)
