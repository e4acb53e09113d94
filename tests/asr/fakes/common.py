"""What fake services have in common: handshakes, faults on demand, what was heard, an ear."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from tests.asr.support.tones import FRAME_MS, timed_words, tones_in

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
    handshake_delay_s: float = 0.0
    """Answer it late."""
    after_ms: float | None = None
    """Go wrong after so much audio; 0 is as soon as the connection is open."""
    then: Literal["drop", "close", "mute", "withhold", "deaf", "error"] = "drop"
    """Cut the connection, close it with ``code``, send nothing more, send nothing more but close
    when asked to, read nothing more, or send the service's own message of a fatal error."""
    code: int | None = 1011
    """None closes without a code."""
    reason: str = "closed on demand"
    error: dict[str, str] = {}
    """Members of the fatal error."""
    delay_s: float = 0.0
    """Say everything so much later."""
    strange: str | bytes | None = None
    """Send this before anything else."""


class Heard(msgspec.Struct, kw_only=True):
    """What came over one connection."""

    attempted_s: float
    """``time.monotonic()`` of the handshake."""
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    open: bool = False
    audio_ms: float = 0.0
    """As decoded."""
    sizes: list[int] = []
    """Bytes of each binary message."""
    texts: list[str] = []
    """Types of the text messages."""
    violations: list[str] = []
    """How the client broke the protocol."""


class FakeService(ABC):
    """``async with`` it; ``url`` is then the service's address, without a path."""

    def __init__(self, faults: Sequence[Fault] | Callable[[int], Fault] = ()) -> None:
        """``faults`` by number of attempt."""
        self._fault_of = faults if callable(faults) else _from(faults)
        self.connections: list[Heard] = []
        self.released = asyncio.Event()
        self._server: Server | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self._server is not None
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @property
    def open_connections(self) -> int:
        """Connections that are open right now."""
        return sum(heard.open for heard in self.connections)

    @abstractmethod
    def refuse(self, request: Request, heard: Heard) -> Response | None:
        """The answer to a request that the service does not take."""

    @abstractmethod
    def converse(self, line: Line) -> Conversation:
        """What serves a connection that is open."""

    def subprotocol(
        self, _: ServerConnection, offered: Sequence[Subprotocol]
    ) -> Subprotocol | None:
        """Which of the offered subprotocols is agreed on."""
        return None

    async def __aenter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_QUEUE_BYTES)
        self._server = await serve(
            self._serve,
            sock=listener,
            process_request=self._handshake,
            select_subprotocol=self.subprotocol,
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
        parts = urlsplit(request.path)
        heard = Heard(
            attempted_s=time.monotonic(),
            path=parts.path,
            query=parse_qs(parts.query, keep_blank_values=True),
            headers={name.lower(): value for name, value in request.headers.raw_items()},
        )
        fault = self._fault_of(len(self.connections))
        self.connections.append(heard)
        socket.heard, socket.fault = heard, fault  # type: ignore[attr-defined]
        await asyncio.sleep(fault.handshake_delay_s)
        if fault.hang:
            await self.released.wait()
        if fault.status is not None:
            return answer(fault.status, {"err_msg": "refused on demand"}, fault.headers)
        return self.refuse(request, heard)

    async def _serve(self, socket: ServerConnection) -> None:
        heard: Heard = socket.heard  # type: ignore[attr-defined]
        line = Line(socket, heard, socket.fault)  # type: ignore[attr-defined]
        heard.open = True
        try:
            await line.carry(self.converse(line), self.released)
        except ConnectionClosed:
            pass
        finally:
            heard.open = False


class Conversation(ABC):
    """One open connection, as its service acts on it."""

    timeout_s: float | None = None
    """How long the client may send nothing."""

    async def begin(self) -> None:
        """The connection is open."""
        return

    @abstractmethod
    async def audio(self, message: bytes) -> float:
        """Take a binary message; returns the milliseconds of audio so far."""

    @abstractmethod
    async def text(self, message: str) -> None:
        """Take a text message."""

    @abstractmethod
    async def fail(self, error: dict[str, str]) -> None:
        """Send the message of a fatal error and close."""

    async def timed_out(self) -> None:
        """The client has sent nothing for ``timeout_s``."""
        return


class Line:
    """The socket of a connection, with its fault built in."""

    def __init__(self, socket: ServerConnection, heard: Heard, fault: Fault) -> None:
        self.heard = heard
        self._socket = socket
        self._fault = fault
        self._failed = False
        self._muted = False
        self._outgoing: asyncio.Queue[tuple[float, Callable[[], Any]]] = asyncio.Queue()

    async def carry(self, conversation: Conversation, released: asyncio.Event) -> None:
        """Read until the connection ends."""
        if self._fault.strange is not None:
            await self._socket.send(self._fault.strange)
        await conversation.begin()
        talking = asyncio.create_task(self._talk())
        try:
            await self._go_wrong(0, conversation, released)
            while True:
                try:
                    async with asyncio.timeout(conversation.timeout_s):
                        message = await self._socket.recv()
                except TimeoutError:
                    await conversation.timed_out()
                    continue
                if isinstance(message, bytes):
                    self.heard.sizes.append(len(message))
                    self.heard.audio_ms = await conversation.audio(message)
                    await self._go_wrong(self.heard.audio_ms, conversation, released)
                else:
                    with suppress(ValueError, KeyError, TypeError):
                        self.heard.texts.append(json.loads(message)["type"])
                    await conversation.text(message)
        finally:
            talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)

    def say(self, kind: str, **members: Any) -> None:
        """Send a message, unless mute."""
        self.tell({"type": kind, **members})

    def tell(self, message: dict[str, Any]) -> None:
        """Send a JSON message, unless mute."""
        if not self._muted:
            text = json.dumps(message)
            self._later(lambda: self._socket.send(text))

    def hang_up(self, code: int | None = 1000, reason: str = "") -> None:
        """Close after what was said; None is without a code."""
        if self._muted and self._fault.then == "mute":
            return
        if code is None:
            self._later(self._close_without_code)
        else:
            self._later(lambda: self._socket.close(code, reason))

    def violated(self, message: str) -> None:
        """Note that the client broke the protocol."""
        self.heard.violations.append(message)

    def _later(self, act: Callable[[], Any]) -> None:
        self._outgoing.put_nowait((time.monotonic() + self._fault.delay_s, act))

    async def _talk(self) -> None:
        while True:
            due_s, act = await self._outgoing.get()
            await asyncio.sleep(max(due_s - time.monotonic(), 0))
            with suppress(ConnectionClosed):
                await act()

    async def _go_wrong(
        self, audio_ms: float, conversation: Conversation, released: asyncio.Event
    ) -> None:
        fault = self._fault
        if self._failed or fault.after_ms is None or audio_ms < fault.after_ms:
            return
        self._failed = True
        if fault.then == "drop":
            self._socket.transport.abort()
        elif fault.then == "close":
            self.hang_up(fault.code, fault.reason)
        elif fault.then in ("mute", "withhold"):
            self._muted = True
        elif fault.then == "deaf":
            self._socket.transport.pause_reading()
            await released.wait()
        else:
            await conversation.fail(fault.error)

    async def _close_without_code(self) -> None:
        self._socket.transport.write(b"\x88\x00")  # a close frame without a body
        self._socket.transport.close()


class Ear:
    """Hears tones as words, frame by frame."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._frame_bytes = rate_hz * FRAME_MS // 1000 * 2
        self._rest = b""
        self.tones: list[int] = []
        """Of each frame of 20 ms the number of its word, or -1."""
        self.samples = 0

    @property
    def audio_ms(self) -> float:
        """How much has been heard."""
        return self.samples * 1000 / self._rate_hz

    def hear(self, pcm: bytes) -> None:
        """Take s16le mono audio."""
        self.samples += len(pcm) // 2
        audio = self._rest + pcm
        whole = len(audio) // self._frame_bytes * self._frame_bytes
        self._rest = audio[whole:]
        if whole:
            self.tones += tones_in(audio[:whole], self._rate_hz)

    def words(self, begin: int, end: int) -> list[tuple[str, float, float]]:
        """The words between two frames, with their seconds of audio."""
        frame_s = FRAME_MS / 1000
        return [
            (word, round((begin + first) * frame_s, 3), round((begin + last) * frame_s, 3))
            for word, first, last in timed_words(self.tones[begin:end])
        ]


def answer(
    status: HTTPStatus, body: dict[str, str], headers: dict[str, str] | None = None
) -> Response:
    """A refusal as JSON."""
    content = json.dumps(body).encode()
    sent = Headers(headers or {})
    sent["Content-Type"] = "application/json"
    sent["Content-Length"] = str(len(content))
    return Response(status.value, status.phrase, sent, content)


def _from(faults: Sequence[Fault]) -> Callable[[int], Fault]:
    return lambda number: faults[number] if number < len(faults) else Fault()
