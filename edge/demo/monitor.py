"""Asks a gateway on an interval to transcribe a sample, and says in metrics whether it did."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path

import msgspec
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    generate_latest,
)
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from edge.demo.bridge import (
    CLOCK_HZ,
    FRAME_MS,
    Departure,
    Line,
    encode_frames,
    media_message,
    session_end_message,
    start_message,
)
from edge.demo.client import close_reason, connected, decode, transcribe_url
from edge.demo.replay import BadDump, read_dump
from edge.demo.settings import MonitorSettings
from edge.demo.speech import demo_recordings, read_wav
from edge.errors import EdgescribeError
from edge.logs import get_logger

_log = get_logger("edge.demo.monitor")
_TAG = "abcdef01-1"
_LINE = Line(loss=0, late=0, dtx=False, audio_levels=False)
_PAUSE_S = 1.0
"""Silence after the sample: what ends its last utterance."""
SESSION_PLACEHOLDER = "__SESSION_ID__"
PREFIXES = ("edgescribe_monitor", "opus_transcriber_proxy_monitor")
"""Metrics come under both names: the second is that of the gateway Jitsi deployments know."""


class CannotListen(EdgescribeError):
    """The monitor's own port cannot be had."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one replay of the sample."""

    finals: int = 0
    first_final_s: float | None = None
    """From the beginning of the sending."""
    problem: str | None = None
    """Why it is not good; None if it is."""


def read_sample(path: str) -> list[Departure]:
    """The messages of a sample and when each is due. Raises ``EdgescribeError``.

    ``path`` is a WAV file or a recording of ``DUMP_WEBSOCKET_MESSAGES``; empty is the packaged
    speech.
    """
    if path.endswith(".jsonl"):
        return _recorded(Path(path))
    speech = read_wav(path or demo_recordings()[1].path).repeated(1, _PAUSE_S)
    departures = [Departure(0.0, start_message(1, _TAG))]
    for index, (payload, _) in enumerate(encode_frames(speech, _LINE)):
        timestamp = index * FRAME_MS * CLOCK_HZ // 1000
        text = media_message(index + 2, _TAG, index, timestamp, payload)
        departures.append(Departure((index + 1) * FRAME_MS / 1000, text))
    return departures


def _recorded(path: Path) -> list[Departure]:
    lines = [line for line in read_dump(path) if '"session-end"' not in line.data]
    if not lines:
        raise BadDump(f'{path} holds no message with "direction":"incoming"')
    first_ms = lines[0].timestamp
    return [Departure((line.timestamp - first_ms) / 1000, line.data) for line in lines]


async def attempt(settings: MonitorSettings, sample: Sequence[Departure]) -> Attempt:
    """Replay the sample once in a session of its own."""
    session_id = f"monitor-{secrets.token_hex(6)}"
    address = (settings.monitor_url or "").replace(SESSION_PLACEHOLDER, session_id)
    try:
        url = transcribe_url(address, {"sessionId": session_id, "sendBack": "true"})
        return await _replay(url, settings, sample)
    except EdgescribeError as error:
        return Attempt(problem=str(error))


async def _replay(url: str, settings: MonitorSettings, sample: Sequence[Departure]) -> Attempt:
    speed = settings.monitor_speed
    finals = 0
    first_final_s: float | None = None
    problem: str | None = None
    async with connected(url, settings.monitor_headers) as socket:
        began_s = time.monotonic()
        sending = asyncio.create_task(_send(socket, sample, speed))
        limit_s = settings.monitor_deadline_s + (sample[-1].at_s / speed if speed else 0.0)
        try:
            async with asyncio.timeout(limit_s):
                while True:
                    data = await socket.recv()
                    message = decode(data)
                    if message is None:
                        continue
                    if message.event == "error":
                        problem = f"it reported {message.code}: {message.message}"
                    if message.is_result and not message.is_interim and message.text:
                        finals += 1
                        first_final_s = first_final_s or time.monotonic() - began_s
                    if finals >= settings.monitor_min_finals:
                        return Attempt(finals=finals, first_final_s=first_final_s)
        except ConnectionClosed:
            problem = problem or f"it closed the connection: {close_reason(socket)}"
        except TimeoutError:
            problem = problem or f"no more came within {limit_s:g} s"
        finally:
            is_early = sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            if is_early:
                with suppress(ConnectionClosed):
                    await socket.send(session_end_message())
    wanted = settings.monitor_min_finals
    return Attempt(
        finals=finals,
        first_final_s=first_final_s,
        problem=f"{finals} of {wanted} finals came; {problem}",
    )


async def _send(socket: ClientConnection, sample: Sequence[Departure], speed: float) -> None:
    zero_s = time.monotonic()
    for departure in sample:
        if speed:
            await asyncio.sleep(max(0.0, zero_s + departure.at_s / speed - time.monotonic()))
        await socket.send(departure.text)
    await socket.send(session_end_message())


class Monitor:
    """Checks one gateway for as long as ``run`` runs."""

    def __init__(self, settings: MonitorSettings, sample: Sequence[Departure]) -> None:
        self._settings = settings
        self._sample = sample
        self._registry = CollectorRegistry()

        def gauge(name: str, said: str) -> list[Gauge]:
            names = [f"{prefix}_{name}" for prefix in PREFIXES]
            return [Gauge(each, said, registry=self._registry) for each in names]

        self._healthy = gauge("healthy", "1 if the last check got its finals, else 0")
        self._checked_s = gauge("last_check_timestamp_seconds", "Unix time of the last check")
        self._healthy_s = gauge(
            "last_healthy_timestamp_seconds", "Unix time of the last check that passed"
        )
        self._checks = [
            Counter(f"{prefix}_checks", "Checks that are done", registry=self._registry)
            for prefix in PREFIXES
        ]
        self._first_final_s = Gauge(
            f"{PREFIXES[0]}_first_final_seconds",
            "From the beginning of the sample to its first final, in the last check that passed",
            registry=self._registry,
        )

    async def run(self) -> None:
        """Check, wait, check again, until cancelled."""
        while True:
            await self.check()
            await asyncio.sleep(self._settings.monitor_interval_s)

    async def check(self) -> bool:
        """Replay the sample, once more if that fails; whether the gateway is well."""
        result = await attempt(self._settings, self._sample)
        if result.problem is not None:
            _log.warning("the first attempt failed", reason=result.problem)
            await asyncio.sleep(self._settings.monitor_retry_delay_s)
            result = await attempt(self._settings, self._sample)
        self._note(result)
        return result.problem is None

    @asynccontextmanager
    async def serving(self, host: str) -> AsyncIterator[int]:
        """Answer ``/health`` and ``/metrics`` for the length of the block; gives the port.

        ``/health`` speaks of the monitor alone, which lives however its gateway fares.
        """
        port = self._settings.monitor_port
        try:
            server = await serve(_nobody, host, port, process_request=self._answer)
        except OSError as error:
            reason = error.strerror or str(error)
            raise CannotListen(f"cannot listen on {host}:{port}: {reason}") from None
        async with server:
            yield next(iter(server.sockets)).getsockname()[1]

    def _note(self, result: Attempt) -> None:
        healthy, now_s = result.problem is None, int(time.time())
        for gauge in self._healthy:
            gauge.set(healthy)
        for gauge in (*self._checked_s, *(self._healthy_s if healthy else ())):
            gauge.set(now_s)
        for counter in self._checks:
            counter.inc()
        if healthy and result.first_final_s is not None:
            self._first_final_s.set(result.first_final_s)
            _log.info("check passed", finals=result.finals, first_final_s=result.first_final_s)
        else:
            _log.error("check failed", reason=result.problem)

    def _answer(self, connection: ServerConnection, request: Request) -> Response:
        match request.path.partition("?")[0]:
            case "/health":
                return _response(HTTPStatus.OK, b"OK")
            case "/metrics":
                headers = {"Content-Type": CONTENT_TYPE_LATEST}
                return _response(HTTPStatus.OK, generate_latest(self._registry), headers)
            case _:
                return _response(HTTPStatus.NOT_FOUND, b"Not found: /health, /metrics")


def _response(
    status: HTTPStatus, body: bytes, headers: Mapping[str, str] | None = None
) -> Response:
    sent = Headers({"Content-Type": "text/plain; charset=utf-8", **(headers or {})})
    sent["Content-Length"] = str(len(body))
    sent["Connection"] = "close"
    return Response(status.value, status.phrase, sent, body)


async def _nobody(connection: ServerConnection) -> None:
    """Every request is answered before it could become a WebSocket."""
