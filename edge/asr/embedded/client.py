"""A worker's connection to the inference process.

Comes in: segments to decode, from the streams of this worker. Goes out: their answers, through the
callback each came with. Requests that must be answered survive the process: they are sent again to
its successor. All methods belong to one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

import msgspec
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from edge.asr.embedded.messages import (
    Answer,
    Decode,
    Deframer,
    Kind,
    Outcome,
    Ready,
    check_socket_path,
    frame,
)
from edge.errors import RecognizerRefused
from edge.logs import get_logger

MOST_SENDS: Final = 3
"""A segment whose decoding ended the process this often is given up."""
MOST_UNSENT_BYTES: Final = 4 * 1024 * 1024
"""Bytes waiting in the socket beyond which interims are skipped."""
LONGEST_AWAY_S: Final = 15.0
"""Time without a process after which what waits for one has failed."""
LONGEST_ANSWER_S: Final = 30.0
"""Time a connected process may take for a request before it counts as hung."""
LOOK_S: Final = 1.0
"""How often those two deadlines are looked at."""

_log: Final = get_logger("edge.asr.embedded")
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Ready | Answer)

OnAnswer = Callable[[Answer], None]


class Outstanding:
    """A request that has no answer yet."""

    __slots__ = ("on_answer", "request", "sends", "sent_s")

    def __init__(self, request: Decode, on_answer: OnAnswer) -> None:
        self.request = request
        self.on_answer = on_answer
        self.sends = 0
        self.sent_s: float | None = None


class InferenceClient(asyncio.Protocol):
    """Connects, connects again, and keeps what must not be lost."""

    def __init__(self, socket_path: Path) -> None:
        """``SettingError`` when the path is too long for a Unix socket."""
        check_socket_path(socket_path)
        self._socket_path = socket_path
        self._outstanding: dict[int, Outstanding] = {}
        self._ids = itertools.count(1)
        self._transport: asyncio.Transport | None = None
        self._deframer = Deframer()
        self._lost = asyncio.Event()
        self._settled = asyncio.Event()
        self._usable = False
        self._refusal: str | None = None
        self._away_since_s = 0.0
        self._keeper: asyncio.Task[None] | None = None
        self.load = 0.0
        """Last known load of the inference threads, 0 to 1."""

    async def stop(self) -> None:
        """Close the connection; requests without an answer are dropped unanswered."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        self._outstanding.clear()
        if self._transport is not None:
            self._transport.abort()

    async def ready(self) -> None:
        """Return once the process can decode; the first call begins to connect, ``stop`` ends it.

        Waits as long as it takes; ``RecognizerRefused`` if its weights cannot be loaded.
        """
        if self._keeper is None:
            self._away_since_s = asyncio.get_running_loop().time()
            self._keeper = asyncio.create_task(self._keep(), name="inference-client")
        await self._settled.wait()
        if self._refusal is not None:
            raise RecognizerRefused(f"embedded recognizer: {self._refusal}")

    def next_id(self) -> int:
        """A number for the next request."""
        return next(self._ids)

    def decode(self, request: Decode, then: OnAnswer) -> None:
        """Ask for the text of a segment.

        ``then`` is called once with the answer. Requests other than interims wait for a process
        when there is none; interims are then answered as skipped, from the event loop's next turn.
        """
        entry = Outstanding(request, then)
        self._outstanding[request.id] = entry
        interim = request.kind is Kind.INTERIM
        if self._usable and not (interim and self._clogged()):
            self._send(entry)
        elif interim:
            skipped = Answer(request.id, Outcome.SKIPPED)
            asyncio.get_running_loop().call_soon(self._settle, skipped)

    def forget(self, number: int) -> None:
        """Nobody wants the answer of this request any more."""
        self._outstanding.pop(number, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._deframer = Deframer()
        self._lost.clear()

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._deframer.feed(data):
                message = _decoder.decode(body)
                if isinstance(message, Ready):
                    self._became_ready(message)
                else:
                    self.load = message.load
                    self._settle(message)
        except (ValueError, msgspec.MsgspecError) as error:
            _log.error("the inference process sent what is no answer", error=str(error))
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._usable = False
        self._refusal = None
        self._settled.clear()
        self._away_since_s = asyncio.get_running_loop().time()
        self._lost.set()
        for entry in list(self._outstanding.values()):
            if entry.request.kind is Kind.INTERIM:
                self._settle(Answer(entry.request.id, Outcome.SKIPPED))
            elif entry.sends >= MOST_SENDS:
                self._settle(Answer(entry.request.id, Outcome.FAILED))

    async def _keep(self) -> None:
        """Hold a connection for ever; cancelled by ``stop``."""
        loop = asyncio.get_running_loop()
        watch = asyncio.create_task(self._watch(), name="inference-deadlines")
        try:
            while True:
                async for attempt in AsyncRetrying(
                    retry=retry_if_exception_type(OSError),
                    wait=wait_random_exponential(multiplier=0.05, max=0.5),
                ):
                    with attempt:
                        await loop.create_unix_connection(lambda: self, str(self._socket_path))
                await self._lost.wait()
                _log.warning("the inference process is gone, connecting again")
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch

    async def _watch(self) -> None:
        """Fail what waited too long for a process; cut off a process that hangs."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_S)
            now_s = loop.time()
            if not self._usable and now_s - self._away_since_s > LONGEST_AWAY_S:
                for number in list(self._outstanding):
                    self._settle(Answer(number, Outcome.FAILED))
            elif self._usable and any(
                entry.sent_s is not None and now_s - entry.sent_s > LONGEST_ANSWER_S
                for entry in self._outstanding.values()
            ):
                _log.error("the inference process hangs", longest_answer_s=LONGEST_ANSWER_S)
                if self._transport is not None:
                    self._transport.abort()

    def _became_ready(self, ready: Ready) -> None:
        self._refusal = ready.error
        self._settled.set()
        if ready.error is not None:
            for number in list(self._outstanding):
                self._settle(Answer(number, Outcome.FAILED))
            return
        self._usable = True
        for entry in list(self._outstanding.values()):
            self._send(entry)

    def _send(self, entry: Outstanding) -> None:
        assert self._transport is not None
        entry.sends += 1
        entry.sent_s = asyncio.get_running_loop().time()
        self._transport.writelines(frame(_encoder.encode(entry.request)))

    def _clogged(self) -> bool:
        assert self._transport is not None
        return self._transport.get_write_buffer_size() > MOST_UNSENT_BYTES

    def _settle(self, answer: Answer) -> None:
        entry = self._outstanding.pop(answer.id, None)
        if entry is not None:
            entry.on_answer(answer)
