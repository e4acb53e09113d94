"""A Realtime transcription endpoint that keeps to OpenAI's protocol and hears tones as words.

It is as strict as the real one where the reference says so (authorization, session before audio,
valid base64, whole samples, 100 ms to commit), finds utterances by loudness, and fails on demand.
What it was sent is kept for tests to look at. It is itself checked by the official client.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from itertools import count
from typing import Any, Self

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from tests.asr.fakes.openai_objects import (
    RATE_HZ,
    beta_fault,
    described,
    error_object,
    ga_fault,
    logprobs,
)
from tests.asr.support.tones import FRAME_MS, loud_frames, words_in

KEY = "sk-test-0123456789"
BYTES_PER_MS = RATE_HZ * 2 // 1000
FRAME_BYTES = FRAME_MS * BYTES_PER_MS
LEAST_COMMIT_MS = 100
KERNEL_QUEUE_BYTES = 64 * 1024
"""Small, so that not reading is felt soon."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """How one connection goes wrong; the default is not at all."""

    status: HTTPStatus | None = None
    """Refuse the handshake with this."""
    headers: dict[str, str] = {}
    """Headers of that refusal."""
    hang: bool = False
    """Never answer the handshake."""
    close_code: int | None = None
    """Close with this as soon as the connection is open."""
    drop_after_ms: float | None = None
    """Cut the connection without a close frame after so much audio."""
    error_after_ms: float | None = None
    """Send ``error`` after so much audio; 0 is in answer to the session."""
    error: dict[str, str | None] = {}
    mute: bool = False
    """Read everything, send nothing."""
    strange: bytes | None = None
    """Send this, in a binary frame, before anything else."""
    deaf: bool = False
    """Stop reading after the handshake."""


class Heard(msgspec.Struct, kw_only=True):
    """What came over one connection."""

    attempted_s: float
    """``time.monotonic()`` of the handshake."""
    path: str
    headers: dict[str, str]
    open: bool = False
    session: dict[str, Any] | None = None
    """The session as configured."""
    appends: int = 0
    audio: bytearray = msgspec.field(default_factory=bytearray)
    commits: int = 0
    violations: list[str] = []
    """Errors sent because the client broke the protocol; empty commits are not among them."""

    @property
    def audio_ms(self) -> float:
        """Audio received."""
        return len(self.audio) / BYTES_PER_MS


class FakeOpenAI:
    """``async with FakeOpenAI() as endpoint``; then ``endpoint.url``."""

    def __init__(
        self,
        *,
        faults: Sequence[Fault] | Callable[[int], Fault] = (),
        transcribe: Callable[[bytes], str] = lambda pcm: words_in(pcm, RATE_HZ),
        delay_s: Callable[[int], float] = lambda item: 0.0,
        fails: Callable[[int], bool] = lambda item: False,
        vad_events: bool = True,
        host: str = "127.0.0.1",
    ) -> None:
        """``faults`` by number of attempt, ``delay_s`` and ``fails`` by number of item."""
        self._host = host
        self._fault_of = faults if callable(faults) else _from(faults)
        self.transcribe = transcribe
        self.delay_s = delay_s
        self.fails = fails
        self.vad_events = vad_events
        self.connections: list[Heard] = []
        self.items = count()
        self.released = asyncio.Event()
        self._server: Server | None = None

    @property
    def url(self) -> str:
        """Address of a transcription session."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return f"ws://{self._host}:{port}/v1/realtime?intent=transcription"

    @property
    def open_connections(self) -> int:
        """Connections that are open right now."""
        return sum(heard.open for heard in self.connections)

    async def __aenter__(self) -> Self:
        listener = socket.create_server((self._host, 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_QUEUE_BYTES)
        self._server = await serve(
            self._serve,
            sock=listener,
            process_request=self._handshake,
            select_subprotocol=_subprotocol,
            compression=None,
            max_size=20 << 20,
            ping_interval=None,
            close_timeout=1,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self.released.set()
        self._server.close()
        await self._server.wait_closed()

    async def _handshake(self, socket: ServerConnection, request: Request) -> Response | None:
        number = len(self.connections)
        heard = Heard(
            attempted_s=time.monotonic(),
            path=request.path,
            headers={name.lower(): value for name, value in request.headers.raw_items()},
        )
        self.connections.append(heard)
        fault = self._fault_of(number)
        socket.heard, socket.fault = heard, fault  # type: ignore[attr-defined]
        if fault.hang:
            await self.released.wait()
        if fault.status is not None:
            return _answer(fault.status, "server_error", "refused on demand", fault.headers)
        if not re.fullmatch(r"/v1/realtime\?(.*&)?intent=transcription(&.*)?", request.path):
            return _answer(HTTPStatus.NOT_FOUND, "invalid_request_error", "unknown address")
        if not _authorized(request.headers):
            return _answer(HTTPStatus.UNAUTHORIZED, "invalid_request_error", "wrong key")
        return None

    async def _serve(self, socket: ServerConnection) -> None:
        heard: Heard = socket.heard  # type: ignore[attr-defined]
        fault: Fault = socket.fault  # type: ignore[attr-defined]
        heard.open = True
        try:
            if fault.close_code is not None:
                await socket.close(fault.close_code, "closed on demand")
            elif fault.deaf:
                socket.transport.pause_reading()
                await self.released.wait()
            else:
                await _Session(self, socket, heard, fault).run()
        except ConnectionClosed:
            pass
        finally:
            heard.open = False


class _Session:
    """One open connection."""

    def __init__(
        self, endpoint: FakeOpenAI, socket: ServerConnection, heard: Heard, fault: Fault
    ) -> None:
        self._endpoint = endpoint
        self._socket = socket
        self._heard = heard
        self._fault = fault
        self._fault_done = False
        self._events = count()
        self._vad: dict[str, Any] | None = None
        self._judged = 0
        """Bytes of audio the VAD has seen."""
        self._buffer_from = 0
        """Byte from which audio has not been committed."""
        self._speech_from: int | None = None
        self._quiet_frames = 0
        self._item = ""
        self._last_item: str | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        if self._fault.strange is not None:
            await self._socket.send(self._fault.strange)
        await self._send("session.created", session=described({}))
        try:
            async for message in self._socket:
                await self._take(message)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, message: str | bytes) -> None:
        try:
            event = json.loads(message)
            kind = event["type"]
        except (ValueError, KeyError, TypeError):
            await self._violated("invalid_json", "not a JSON object with a type")
            return
        if kind in ("session.update", "transcription_session.update"):
            await self._configure(kind, event.get("session"))
        elif self._heard.session is None:
            await self._violated("session_missing", f"{kind} before session.update")
        elif kind == "input_audio_buffer.append":
            await self._append(event.get("audio"))
        elif kind == "input_audio_buffer.commit":
            await self._commit_by_client()
        else:
            await self._violated("invalid_value", f"unknown event {kind}")

    async def _configure(self, kind: str, session: Any) -> None:
        fault = beta_fault(session) if kind.startswith("transcription_") else ga_fault(session)
        if fault:
            await self._violated("invalid_value", fault)
            return
        self._heard.session = session
        ga = session.get("audio", {}).get("input", session)
        self._vad = ga.get("turn_detection")
        if self._fault.error_after_ms == 0:
            await self._send("error", error=error_object(self._fault.error))
            return
        await self._send(kind.replace(".update", ".updated"), session=described(session))

    async def _append(self, audio: Any) -> None:
        try:
            pcm = base64.b64decode(audio, validate=True)
        except (binascii.Error, TypeError, ValueError):
            await self._violated("invalid_audio", "audio is not base64")
            return
        if len(pcm) % 2 or not pcm:
            await self._violated("invalid_audio", "audio is not a whole number of samples")
            return
        self._heard.appends += 1
        self._heard.audio += pcm
        await self._listen()
        await self._fail_on_demand()

    async def _fail_on_demand(self) -> None:
        fault, heard_ms = self._fault, self._heard.audio_ms
        if fault.drop_after_ms is not None and heard_ms >= fault.drop_after_ms:
            self._socket.transport.abort()
        if fault.error_after_ms and heard_ms >= fault.error_after_ms and not self._fault_done:
            self._fault_done = True
            await self._send("error", error=error_object(fault.error))

    async def _listen(self) -> None:
        """Server VAD over the frames that have come since the last time."""
        audio = self._heard.audio
        end = len(audio) // FRAME_BYTES * FRAME_BYTES
        fresh = bytes(audio[self._judged : end])
        start, self._judged = self._judged, end
        if not self._vad or not fresh:
            return
        padding = self._vad.get("prefix_padding_ms", 300) * BYTES_PER_MS
        patience = self._vad.get("silence_duration_ms", 500) // FRAME_MS
        for number, loud in enumerate(loud_frames(fresh, RATE_HZ)):
            at = start + number * FRAME_BYTES
            if loud:
                self._quiet_frames = 0
                if self._speech_from is None:
                    self._item = self._new_item()
                    self._speech_from = max(at - padding, self._buffer_from)
                    await self._vad_event("speech_started", audio_start_ms=self._speech_from)
            elif self._speech_from is not None:
                self._quiet_frames += 1
                if self._quiet_frames >= patience:
                    await self._vad_event("speech_stopped", audio_end_ms=at + FRAME_BYTES)
                    await self._commit(self._item, self._speech_from, at + FRAME_BYTES)

    async def _vad_event(self, name: str, **position: int) -> None:
        if self._endpoint.vad_events:
            times = {field: at // BYTES_PER_MS for field, at in position.items()}
            await self._send(f"input_audio_buffer.{name}", item_id=self._item, **times)

    async def _commit_by_client(self) -> None:
        self._heard.commits += 1
        end = len(self._heard.audio)
        held_ms = (end - self._buffer_from) / BYTES_PER_MS
        if held_ms < LEAST_COMMIT_MS:
            await self._send(
                "error",
                error=error_object(
                    {
                        "type": "invalid_request_error",
                        "code": "input_audio_buffer_commit_empty",
                        "message": f"buffer too small: {held_ms:.2f} ms of audio",
                    }
                ),
            )
            return
        start = self._buffer_from if self._speech_from is None else self._speech_from
        await self._commit(self._new_item(), start, end)

    async def _commit(self, item: str, start: int, end: int) -> None:
        pcm = bytes(self._heard.audio[start:end])
        self._buffer_from, self._speech_from, self._quiet_frames = end, None, 0
        self._judged = max(self._judged, end // FRAME_BYTES * FRAME_BYTES)
        previous, self._last_item = self._last_item, item
        await self._send("input_audio_buffer.committed", item_id=item, previous_item_id=previous)
        task = asyncio.create_task(self._transcribe(item, pcm))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _transcribe(self, item: str, pcm: bytes) -> None:
        number = int(item.rpartition("_")[2])
        event = "conversation.item.input_audio_transcription"
        with suppress(ConnectionClosed):
            await asyncio.sleep(self._endpoint.delay_s(number))
            if self._endpoint.fails(number):
                problem = {"type": "server_error", "code": None, "message": "on demand"}
                await self._send(f"{event}.failed", item_id=item, content_index=0, error=problem)
                return
            text = self._endpoint.transcribe(pcm)
            for delta in re.findall(r"\s*\S+", text):
                await self._send(
                    f"{event}.delta",
                    item_id=item,
                    content_index=0,
                    delta=delta,
                    logprobs=logprobs([delta]),
                )
            await self._send(
                f"{event}.completed",
                item_id=item,
                content_index=0,
                transcript=text,
                logprobs=logprobs(text.split()),
                usage={"type": "duration", "seconds": len(pcm) / BYTES_PER_MS / 1000},
            )

    async def _violated(self, code: str, message: str) -> None:
        self._heard.violations.append(message)
        problem = {"type": "invalid_request_error", "code": code, "message": message}
        await self._send("error", error=error_object(problem))

    def _new_item(self) -> str:
        return f"item_{next(self._endpoint.items)}"

    async def _send(self, kind: str, **members: Any) -> None:
        if self._fault.mute:
            return
        event = {"type": kind, "event_id": f"event_{next(self._events)}", **members}
        await self._socket.send(json.dumps(event))


def _from(faults: Sequence[Fault]) -> Callable[[int], Fault]:
    return lambda number: faults[number] if number < len(faults) else Fault()


def _authorized(headers: Headers) -> bool:
    offered = headers.get("Sec-WebSocket-Protocol", "")
    protocols = [name.strip() for name in offered.split(",")]
    if "realtime" in protocols and f"openai-insecure-api-key.{KEY}" in protocols:
        return True
    return headers.get("Authorization") == f"Bearer {KEY}"


def _subprotocol(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return Subprotocol("realtime") if "realtime" in offered else None


def _answer(
    status: HTTPStatus, kind: str, message: str, headers: dict[str, str] | None = None
) -> Response:
    body = json.dumps({"error": error_object({"type": kind, "message": message})}).encode()
    sent = Headers(headers or {})
    sent["Content-Type"] = "application/json"
    sent["Content-Length"] = str(len(body))
    return Response(status.value, status.phrase, sent, body)
