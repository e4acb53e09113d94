"""One open connection to DashScope: recognition tasks one after another, audio out, text in.

Comes in: PCM, commits, and the service's messages. Goes out: ``StreamEvent`` by way of ``emit``.
The protocol has no flush, so a commit ends the task and the next audio starts another one on the
same connection; audio waits here meanwhile. ``edge.asr.funasr`` opens it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Literal
from uuid import uuid4

import msgspec

from edge.asr.funasr_events import (
    BYTES_PER_MS,
    FAILED,
    FINISHED,
    NAME,
    RESULT,
    STARTED,
    Event,
    Parameters,
    Sentence,
    as_error,
    decode,
    finish_task,
    run_task,
    sentence_of,
)
from edge.asr.interface import Emit, Final, Interim, StreamEvent
from edge.asr.service_stream import MOST_QUEUED_MS, ServiceStream
from edge.asr.upstream import Upstream
from edge.errors import RecognizerBusy, RecognizerClosed, RecognizerError, RecognizerTimeout

WATCH_S = 2.0
"""How often a stream looks at its own deadlines."""
QUIET_S = 10.0
"""A task that gets no audio is finished after so long; the service fails it after 23 s."""
SPARE_S = 45.0
"""A connection without a task gets one after so long; the service drops it after 60 s."""
FINISH_S = 10.0
"""A service that says nothing at all for so long after ``finish-task`` is taken for dead."""
ANSWERED_MS = 10_000
"""Audio after which the service should have said something, if only a heartbeat."""
ANSWERED_AMID_SPEECH_MS = 1000


class TaskForm(msgspec.Struct, frozen=True, kw_only=True):
    """What all tasks of a stream have in common."""

    model: str
    parameters: Parameters
    start_timeout_s: float
    """How long ``task-started`` may take."""
    frame_bytes: int
    """Most audio in one message; whole samples."""
    pacing_s: float
    """Least time between two messages of audio."""


class FunASRCounts(msgspec.Struct):
    """What the streams of a worker met since it started."""

    tasks_started: int = 0
    """Recognition tasks; a commit ends one and begins another."""
    messages_malformed: int = 0
    """Messages in an unknown form."""


class FunASRStream(ServiceStream):
    """See ``RecognizerStream``; made by ``FunASRRecognizer.open``.

    It emits nothing before ``opened`` has returned; what ends it until then is raised there.
    """

    def __init__(
        self,
        connection: Upstream,
        form: TaskForm,
        new_item: Callable[[], str],
        counts: FunASRCounts,
        emit: Emit,
    ) -> None:
        """``new_item`` names utterances."""
        super().__init__(NAME, connection, self._emit_early)
        self._emit_opened = emit
        self._form = form
        self._new_item = new_item
        self._counts = counts
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._state: Literal["none", "starting", "running", "finishing"] = "none"
        """Of the current task."""
        self._task_id = ""
        self._base_bytes = 0
        """Audio sent before the current task: its times count from here."""
        self._sentences = 0
        """Highest number of a sentence of this task that is final."""
        self._told_ms = -1.0
        """End of this task's last final."""
        self._item: str | None = None
        """The sentence that is open."""
        self._held = bytearray()
        self._sent_bytes = 0
        self._commits: deque[int] = deque()
        """Where tasks end that have not been told to."""
        self._committed_bytes = 0
        self._unanswered_bytes = 0
        """Audio sent since the service said anything."""
        self._paced_s = self._audio_s = self._asked_s = time.monotonic()
        self._listen()
        self._run_task()
        self._later("watch", WATCH_S, self._watch)

    async def opened(self) -> None:
        """Return when audio may be sent; raises ``RecognizerError``."""
        async with asyncio.timeout(self._form.start_timeout_s):
            await self._opened
        self._emit = self._emit_opened

    def send(self, audio: bytes) -> None:
        if self._ended or not audio:
            return
        self._audio_s = time.monotonic()
        self._held += audio
        self._pump()
        if self.backlog_ms > MOST_QUEUED_MS:
            self._end(RecognizerBusy(f"{NAME} takes audio more slowly than it is spoken"))

    @property
    def backlog_ms(self) -> float:
        return len(self._held) / BYTES_PER_MS

    @property
    def turn_open(self) -> bool:
        """A task starts or ends, or audio has gone without even a heartbeat for too long."""
        if self._ended or self._state == "none":
            return False
        limit_ms = ANSWERED_MS if self._item is None else ANSWERED_AMID_SPEECH_MS
        return self._state != "running" or self._unanswered_bytes / BYTES_PER_MS >= limit_ms

    def probe(self) -> bool:
        """End the task: a service that lives answers that."""
        self.commit()
        return bool(self._commits) or self._state in ("starting", "finishing")

    def commit(self) -> None:
        received = self._sent_bytes + len(self._held)
        if not self._ended and received > self._committed_bytes:
            self._committed_bytes = received
            self._commits.append(received)
            self._pump()

    async def close(self) -> None:
        if self._state == "running" and not self._ended:
            self._say(finish_task(self._task_id))
        await super().close()

    def writable(self) -> None:
        """Send on what had to wait."""
        super().writable()
        self._pump()

    @property
    def _is_settled(self) -> bool:
        """Whether all that was committed has its text."""
        return not self._commits and self._state != "finishing"

    def _emit_early(self, event: StreamEvent) -> None:
        """Nothing is emitted while ``opened`` is awaited."""

    # Audio

    def _pump(self) -> None:
        """Send what may be sent now; start the task it needs, end the task that is complete."""
        while (self._held or self._commits) and not self._ended:
            if self._state == "none":
                self._run_task()
            if self._state != "running" or not self._connection.is_writable:
                return
            size = self._commits[0] - self._sent_bytes if self._commits else len(self._held)
            if size == 0:
                self._commits.popleft()
                self._finish_task()
                return
            wait_s = self._paced_s - time.monotonic() if self._form.pacing_s else 0.0
            if wait_s > 0:
                self._later("pace", wait_s, self._pump)
                return
            self._send_frame(min(size, self._form.frame_bytes))

    def _send_frame(self, size: int) -> None:
        frame = bytes(self._held[:size])
        del self._held[:size]
        self._sent_bytes += size
        self._unanswered_bytes += size
        self._paced_s = time.monotonic() + self._form.pacing_s
        self._connection.send_binary(frame)

    # Tasks

    def _run_task(self) -> None:
        self._state, self._asked_s = "starting", time.monotonic()
        self._task_id = str(uuid4())
        self._counts.tasks_started += 1
        self._say(run_task(self._task_id, self._form.model, self._form.parameters))

    def _finish_task(self) -> None:
        self._state, self._asked_s = "finishing", time.monotonic()
        self._say(finish_task(self._task_id))

    def _watch(self) -> None:
        now_s = time.monotonic()
        waited_s = now_s - max(self._asked_s, self.heard_s)
        if self._state == "starting" and waited_s > self._form.start_timeout_s:
            self._end(RecognizerTimeout(f"{NAME} does not start a task"))
        elif self._state == "finishing" and waited_s > FINISH_S:
            self._end(RecognizerTimeout(f"{NAME} does not finish a task"))
        elif self._state == "running" and not self._held and now_s - self._audio_s > QUIET_S:
            self._committed_bytes = self._sent_bytes
            self._commits.clear()
            self._finish_task()
        elif self._state == "none" and now_s - self.heard_s > SPARE_S:
            self._run_task()
        if not self._ended:
            self._later("watch", WATCH_S, self._watch)

    # The service's messages

    def _take(self, message: bytes) -> None:
        self._unanswered_bytes = 0
        try:
            event = decode(message)
            sentence = sentence_of(event) if event.header.event == RESULT else None
        except msgspec.DecodeError:
            self._counts.messages_malformed += 1
            return
        if event.header.event == FAILED:
            self._end(as_error(event.header, accepted=self._accepted))
        elif event.header.task_id == self._task_id:
            self._act(event, sentence)

    def _act(self, event: Event, sentence: Sentence | None) -> None:
        match event.header.event:
            case name if name == STARTED and self._state == "starting":
                self._state, self._accepted = "running", True
                self._base_bytes = self._sent_bytes
                self._sentences, self._told_ms, self._item = 0, -1.0, None
                self._audio_s = time.monotonic()
                if not self._opened.done():
                    self._opened.set_result(None)
                self._pump()
            case name if name == RESULT and sentence is not None:
                if not sentence.heartbeat and self._state in ("running", "finishing"):
                    self._hear(sentence)
            case name if name == FINISHED:
                self._finished()

    def _finished(self) -> None:
        if self._state != "finishing":
            self._end(RecognizerClosed(f"{NAME} ended the task by itself"))
            return
        self._state = "none"
        dealt_ms = self._sent_bytes / BYTES_PER_MS
        item, self._item = self._item or self._new_item(), None
        self._tell(Final(item_id=item, text="", start_ms=dealt_ms, end_ms=dealt_ms))
        self._pump()
        if self._is_settled:
            self._settled.set()

    def _hear(self, sentence: Sentence) -> None:
        text = (sentence.text or "").strip()
        if self._is_told(sentence):
            return
        self._item = self._item or self._new_item()
        if not sentence.sentence_end:
            if text:
                self._tell(Interim(item_id=self._item, text=text))
            return
        base_ms, sent_ms = self._base_bytes / BYTES_PER_MS, self._sent_bytes / BYTES_PER_MS
        end_ms = sent_ms if sentence.end_time is None else base_ms + sentence.end_time
        begin_ms = max(self._told_ms, 0.0) if sentence.begin_time is None else sentence.begin_time
        end_ms = min(max(end_ms, base_ms), sent_ms)
        item, self._item = self._item, None
        self._sentences = max(self._sentences, sentence.sentence_id or 0)
        self._told_ms = end_ms - base_ms
        start_ms = min(base_ms + max(begin_ms, 0.0), end_ms)
        self._tell(Final(item_id=item, text=text, start_ms=start_ms, end_ms=end_ms))

    def _is_told(self, sentence: Sentence) -> bool:
        """Whether a result is of a sentence whose final has been told; its text does not matter."""
        if sentence.sentence_id:
            return sentence.sentence_id <= self._sentences
        if sentence.end_time is not None:
            return sentence.end_time <= self._told_ms
        return sentence.begin_time is not None and sentence.begin_time < self._told_ms

    def _end(self, error: RecognizerError | None) -> None:
        if not self._ended:
            self._held.clear()
            self._commits.clear()
            if not self._opened.done():
                self._opened.set_exception(error or RecognizerClosed(f"{NAME}: closed at opening"))
                self._opened.exception()  # whoever opens it may have gone
        super()._end(error)
