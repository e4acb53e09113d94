"""What the streams of remote services do alike: queue, listen, keep timers, end once.

Comes in: an open connection and what a stream sends; the connection's calls. Goes out:
``StreamEvent`` by way of ``emit``. It owns no task: audio goes to the connection as it comes, and
waits only while that is full. Recognizers of remote services derive their streams from it.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Callable
from typing import TypeVar

from edge.asr.interface import Emit, RecognizerStream, StreamEnded, StreamEvent
from edge.asr.service import Outbox, ending_error
from edge.asr.upstream import Ending, Upstream
from edge.beat import beat_after
from edge.errors import RecognizerBusy, RecognizerClosed, RecognizerError
from edge.logs import get_logger

_log = get_logger("edge.asr.service_stream")

MOST_QUEUED_MS = 30_000
"""Audio a connection may hold back; more ends the stream, its supervisor replays on another."""
_T = TypeVar("_T")


class ServiceStream(RecognizerStream):
    """A stream over one ``Upstream``; see ``RecognizerStream`` for what remains to be done."""

    def __init__(self, name: str, connection: Upstream, emit: Emit) -> None:
        """``name`` is the vendor's, for messages. Call ``_listen`` when all else is set up."""
        self.heard_s = time.monotonic()
        self._name = name
        self._connection = connection
        self._emit = emit
        self._outbox = Outbox(connection)
        self._accepted = False
        """Whether the service has taken key and configuration: it works by them."""
        self._ended = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._loop = asyncio.get_running_loop()
        self._settled = asyncio.Event()
        """Set when ``drain`` has nothing more to wait for."""

    @property
    def backlog_ms(self) -> float:
        return self._outbox.queued_ms

    async def drain(self) -> None:
        """Commit, and wait until everything has been answered; see ``RecognizerStream``."""
        self.commit()
        while not (self._ended or self._is_settled):
            self._settled.clear()
            await self._settled.wait()

    async def close(self) -> None:
        self._end(None)
        await self._connection.close()

    @abstractmethod
    def _take(self, message: bytes) -> None:
        """Take a message of the service; what it raises ends the stream."""

    # The connection's calls

    def received(self, message: bytes) -> None:
        """Take a message of the service."""
        if self._ended:
            return
        self.heard_s = time.monotonic()
        try:
            self._take(message)
        except Exception as error:
            _log.exception("a service's message could not be taken", service=self._name)
            self._end(RecognizerClosed(f"{self._name}: reading failed: {type(error).__name__}"))

    def writable(self) -> None:
        """Send on what had to wait."""
        self._outbox.flush()

    def ended(self, ending: Ending) -> None:
        """The connection is gone, though nobody closed it here."""
        self._end(ending_error(self._name, ending, accepted=self._accepted))

    # For derived streams

    @property
    def _is_settled(self) -> bool:
        """Whether ``drain`` may return; looked at again whenever ``_settled`` is set."""
        return not self.turn_open

    def _listen(self) -> None:
        self._connection.listen(self)

    def _put(self, send: Callable[[_T], None], piece: _T, audio_ms: float) -> None:
        """Send audio, or let it wait; ends the stream when too much waits. No-op when ended."""
        if not (self._ended or self._outbox.put(send, piece, audio_ms)):
            self._heed_queue()

    def _heed_queue(self) -> None:
        """Audio had to wait: end the stream when it is too much."""
        if self._outbox.queued_ms > MOST_QUEUED_MS:
            self._end(RecognizerBusy(f"{self._name} takes audio more slowly than it is spoken"))

    def _say(self, message: bytes) -> None:
        """Send a text message after all audio put before it."""
        self._outbox.put(self._connection.send_text, message)

    def _later(self, name: str, delay_s: float, action: Callable[[], None]) -> None:
        """Run ``action`` unless the stream ends before; one timer of a name at a time.

        It comes with the beat that follows: connections share their wake-ups.
        """

        def due() -> None:
            del self._timers[name]
            action()

        self._stop_timer(name)
        due_s = beat_after(self._loop.time(), delay_s)
        self._timers[name] = self._loop.call_at(due_s, due)

    def _stop_timer(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

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
        self._settled.set()
        self._emit(StreamEnded(error=error))
