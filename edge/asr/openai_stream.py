"""One open connection to OpenAI's Realtime API: audio out, transcripts in.

Comes in: PCM, commits, and the server's messages. Goes out: ``StreamEvent`` by way of ``emit``.
``edge.asr.openai_realtime`` opens it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import msgspec

from edge.asr.interface import Emit, Final
from edge.asr.openai_events import (
    APPEND_HEAD,
    APPEND_TAIL,
    BYTES_PER_MS,
    COMMIT,
    COMMIT_EMPTY,
    BetaSessionUpdated,
    Committed,
    Completed,
    Delta,
    ErrorEvent,
    Failed,
    ServerEvent,
    SessionUpdated,
    SpeechStarted,
    SpeechStopped,
    as_error,
    decode,
)
from edge.asr.openai_items import ItemBook
from edge.asr.service_stream import ServiceStream
from edge.asr.upstream import Upstream
from edge.errors import RecognizerError, RecognizerTimeout

ANSWER_S = 20.0
"""How long after a commit a service that lives may take for the next word about any item."""
ORDER_S = 2.0
"""How long a final waits for the items spoken before it."""
UPDATE_ID = "update"
"""Names the messages that configure a session again: an error about one concerns nothing else."""
HUM_MS = 3000.0
"""Sound that the service may leave unmentioned after it did so once; doubles each time."""
MOST_HUM_MS = 12_000.0

_UPDATES = (SessionUpdated, BetaSessionUpdated)

Configure = Callable[[str | None, str | None], bytes]
"""The message that configures the session, from the shared context and an event id."""


class OpenAICounts(msgspec.Struct):
    """What the streams of a worker met since it started."""

    items_failed: int = 0
    """Items the service could not transcribe."""
    messages_malformed: int = 0
    """Server messages of a known type in an unknown form."""
    items_evicted: int = 0
    """Items forgotten because too many were open on one connection."""
    updates_refused: int = 0
    """Times a service would not be configured again amid a session."""


class OpenAIStream(ServiceStream):
    """See ``RecognizerStream``; made by ``OpenAISessions.begin``."""

    def __init__(
        self,
        name: str,
        connection: Upstream,
        configure: Configure,
        emit: Emit,
        counts: OpenAICounts,
    ) -> None:
        """``name`` is whose server it is, for messages."""
        super().__init__(name, connection, emit)
        self._configure = configure
        self._context: str | None = None
        self._update_waits = False
        self._counts = counts
        self._book = ItemBook()
        self._progress_s = self.heard_s
        """When the service last said something about an item."""
        self._heeded_ms = 0.0
        """Where the sound ended of which the service may have known when it was heard last."""
        self._hum_ms = 0.0
        """Sound that it need not mention, as it seems to be no speech."""
        self._listen()
        connection.send_text(configure(None, None))

    def send(self, audio: bytes) -> None:
        if self._ended or not audio:
            return
        self._book.sent(audio)
        self._put(self._append, audio, len(audio) / BYTES_PER_MS)

    def commit(self) -> None:
        if self._ended or not self._book.commit():
            return
        self._say(COMMIT)
        if "answer" not in self._timers:
            self._later("answer", ANSWER_S, self._check_answer)

    @property
    def turn_open(self) -> bool:
        book = self._book
        return book.is_open or book.sound_ms > self._heeded_ms + self._hum_ms

    def probe(self) -> bool:
        """Configure the session as it is already: the service answers that at once."""
        self._update()
        return True

    def share(self, context: str) -> bool:
        self._context = context
        self._update()
        return True

    @property
    def _is_settled(self) -> bool:
        return self._book.settled

    def _update(self) -> None:
        if not self._update_waits and not self._ended:
            self._update_waits = True
            self._outbox.put(self._send_update, b"")

    def _send_update(self, _: bytes) -> None:
        self._update_waits = False
        self._connection.send_text(self._configure(self._context, UPDATE_ID))

    def _append(self, pcm: bytes) -> None:
        self._connection.send_base64(APPEND_HEAD, pcm, APPEND_TAIL)

    def _take(self, message: bytes) -> None:
        try:
            event = decode(message)
        except msgspec.DecodeError:
            self._counts.messages_malformed += 1
            return
        if event is None:
            return
        if not isinstance(event, ErrorEvent):
            self._accepted = True
        self._heed(event)
        self._act(event)
        self._note_settled()

    def _heed(self, event: ServerEvent) -> None:
        """Note what the service makes of the sound it got."""
        if not isinstance(event, _UPDATES):
            self._hum_ms, self._progress_s = 0.0, self.heard_s
        elif self._book.sound_ms > self._heeded_ms:
            self._hum_ms = min(max(HUM_MS, 2 * self._hum_ms), MOST_HUM_MS)
        self._heeded_ms = self._book.sound_ms

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
            case ErrorEvent() if event.error.event_id == UPDATE_ID:
                self._counts.updates_refused += 1
            case ErrorEvent():
                self._end(as_error(self._name, event.error, accepted=self._accepted))

    def _finals(self, finals: Iterable[Final]) -> None:
        for final in finals:
            self._tell(final)
        if self._book.holds_back and "order" not in self._timers:
            self._later("order", ORDER_S, self._stop_holding_back)

    def _stop_holding_back(self) -> None:
        self._finals(self._book.give_up_waiting())
        self._note_settled()

    def _note_settled(self) -> None:
        if self._book.settled:
            self._settled.set()

    def _check_answer(self) -> None:
        """No word about any item since the commit: it is stuck, though the service may live."""
        if self._book.settled:
            return
        silent_s = time.monotonic() - self._progress_s
        if silent_s >= ANSWER_S:
            self._end(RecognizerTimeout(f"{self._name} owes text for {silent_s:.0f} s"))
        else:
            self._later("answer", ANSWER_S - silent_s, self._check_answer)

    def _end(self, error: RecognizerError | None) -> None:
        if not self._ended:
            self._counts.items_evicted += self._book.evicted
        super()._end(error)
