"""One open connection to OpenAI's Realtime API: audio out, transcripts in.

Comes in: PCM, commits, and the server's messages. Goes out: ``StreamEvent`` by way of ``emit``. A
reader and a writer task live as long as the connection; ``close`` awaits both.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from edge.asr.interface import Emit, Final, RecognizerStream, StreamEnded, StreamEvent
from edge.asr.openai_events import (
    BYTES_PER_MS,
    COMMIT,
    COMMIT_EMPTY,
    Committed,
    Completed,
    Delta,
    ErrorEvent,
    Failed,
    ServerEvent,
    SpeechStarted,
    SpeechStopped,
    append,
    as_error,
    decode,
    plain,
)
from edge.asr.openai_items import ItemBook
from edge.errors import (
    RecognizerBusy,
    RecognizerClosed,
    RecognizerError,
    RecognizerRefused,
    RecognizerTimeout,
)
from edge.logs import get_logger

_log = get_logger("edge.asr.openai")

MOST_QUEUED_MS = 30_000
"""Audio a connection may hold back; more ends the stream, its supervisor replays on another."""
ANSWER_S = 20.0
"""A service that sends nothing at all for so long after a commit is taken for dead."""
ORDER_S = 2.0
"""How long a final waits for the items spoken before it."""
CLOSE_S = 1.0
"""How long the closing handshake may take."""
REFUSING_CODES = frozenset({1008, 3000, 3003})
"""Close codes for policy violation, unauthorized and forbidden (IANA WebSocket registry)."""


class OpenAICounts(msgspec.Struct):
    """What the streams of a worker met since it started."""

    items_failed: int = 0
    """Items the service could not transcribe."""
    messages_malformed: int = 0
    """Server messages of a known type in an unknown form."""
    items_evicted: int = 0
    """Items forgotten because too many were open on one connection."""


class OpenAIStream(RecognizerStream):
    """See ``RecognizerStream``; made by ``OpenAIRecognizer.open``."""

    def __init__(
        self, connection: ClientConnection, opening: bytes, emit: Emit, counts: OpenAICounts
    ) -> None:
        """``opening`` is the message that configures the session."""
        self._connection = connection
        self._opening = opening
        self._emit = emit
        self._counts = counts
        self._book = ItemBook()
        self._outbox: deque[bytes] = deque()
        """PCM in the order sent; an empty piece is a commit."""
        self._queued_bytes = 0
        self._accepted = False
        """Whether the service took the configuration: it acknowledged it, or works by it."""
        self._heard_s = 0.0
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._ended = False
        self._closing = False
        loop = self._loop = asyncio.get_running_loop()
        self._wake_writer = asyncio.Event()
        self._settled = asyncio.Event()
        self._writer = loop.create_task(self._write(), name="openai-writer")
        self._reader = loop.create_task(self._read(), name="openai-reader")

    def send(self, audio: bytes) -> None:
        if self._ended or not audio:
            return
        self._book.sent(audio)
        self._outbox.append(audio)
        self._queued_bytes += len(audio)
        self._wake_writer.set()
        if self._queued_bytes > MOST_QUEUED_MS * BYTES_PER_MS:
            self._end(RecognizerBusy("OpenAI takes audio more slowly than it is spoken"))

    @property
    def backlog_ms(self) -> float:
        return self._queued_bytes / BYTES_PER_MS

    def commit(self) -> None:
        if self._ended or not self._book.commit():
            return
        self._outbox.append(b"")
        self._wake_writer.set()
        if "answer" not in self._timers:
            self._later("answer", ANSWER_S, self._check_answer)

    async def drain(self) -> None:
        self.commit()
        while not self._ended and not self._book.settled:
            self._settled.clear()
            await self._settled.wait()

    async def close(self) -> None:
        self._closing = True
        self._end(None)
        self._writer.cancel()
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._connection.close()
        except TimeoutError:
            pass  # it does not read, or does not answer
        finally:
            self._connection.transport.abort()
            await asyncio.wait((self._writer, self._reader))

    async def _write(self) -> None:
        connection, outbox = self._connection, self._outbox
        try:
            await connection.send(self._opening, text=True)
            while True:
                while outbox:
                    piece = outbox[0]
                    await connection.send(append(piece) if piece else COMMIT, text=True)
                    if outbox and outbox[0] is piece:
                        outbox.popleft()
                        self._queued_bytes -= len(piece)
                self._wake_writer.clear()
                await self._wake_writer.wait()
        except ConnectionClosed:
            return  # the reader says why
        except Exception as error:
            _log.exception("openai writer failed")
            self._end(RecognizerClosed(f"OpenAI: writing failed: {type(error).__name__}"))

    async def _read(self) -> None:
        connection = self._connection
        try:
            while True:
                self._take(await connection.recv(decode=False))
        except ConnectionClosed as closed:
            self._end(self._closed_error(closed))
        except Exception as error:
            _log.exception("openai reader failed")
            self._end(RecognizerClosed(f"OpenAI: reading failed: {type(error).__name__}"))

    def _take(self, message: bytes) -> None:
        self._heard_s = self._loop.time()
        try:
            event = decode(message)
        except msgspec.DecodeError:
            self._counts.messages_malformed += 1
            return
        if event is None or self._ended:
            return
        if not isinstance(event, ErrorEvent):
            self._accepted = True
        self._act(event)
        if self._book.settled:
            self._settled.set()

    def _act(self, event: ServerEvent) -> None:
        book = self._book
        match event:
            case Delta():
                self._tell(book.delta(event.item_id, event.delta or "", event.logprobs))
            case Completed():
                language = event.languages[0].code if event.languages else None
                self._finals(
                    book.completed(event.item_id, event.transcript, event.logprobs, language)
                )
            case SpeechStarted():
                book.speech_started(event.item_id, event.audio_start_ms)
            case SpeechStopped():
                book.speech_stopped(event.item_id, event.audio_end_ms)
            case Committed():
                book.committed(event.item_id)
            case Failed():
                self._counts.items_failed += 1
                self._finals(book.failed(event.item_id))
            case ErrorEvent() if event.error.code == COMMIT_EMPTY:
                book.commit_refused()
            case ErrorEvent():
                self._end(as_error(event.error, accepted=self._accepted))

    def _finals(self, finals: Iterable[Final]) -> None:
        for final in finals:
            self._tell(final)
        if self._book.holds_back and "order" not in self._timers:
            self._later("order", ORDER_S, self._stop_holding_back)

    def _stop_holding_back(self) -> None:
        self._finals(self._book.give_up_waiting())
        if self._book.settled:
            self._settled.set()

    def _check_answer(self) -> None:
        """Nothing at all since the commit: the connection is dead, whatever TCP says."""
        if self._book.settled:
            return
        silent_s = self._loop.time() - self._heard_s
        if silent_s >= ANSWER_S:
            self._end(RecognizerTimeout(f"OpenAI has sent nothing for {silent_s:.0f} s"))
        else:
            self._later("answer", ANSWER_S - silent_s, self._check_answer)

    def _later(self, name: str, delay_s: float, action: Callable[[], None]) -> None:
        def due() -> None:
            del self._timers[name]
            action()

        self._timers[name] = self._loop.call_later(delay_s, due)

    def _closed_error(self, closed: ConnectionClosed) -> RecognizerError | None:
        if self._closing:
            return None
        if closed.rcvd is None:
            return RecognizerClosed("OpenAI: the connection was lost")
        code, reason = closed.rcvd.code, closed.rcvd.reason
        text = f"OpenAI closed the connection with {code}" + (
            f": {plain(reason)}" if reason else ""
        )
        if code in REFUSING_CODES and not self._accepted:
            return RecognizerRefused(text)
        return RecognizerClosed(text)

    def _tell(self, event: StreamEvent | None) -> None:
        if event is not None and not self._ended:
            self._emit(event)

    def _end(self, error: RecognizerError | None) -> None:
        if self._ended:
            return
        self._ended = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._outbox.clear()
        self._queued_bytes = 0
        self._counts.items_evicted += self._book.evicted
        self._settled.set()
        self._emit(StreamEnded(error=error))
