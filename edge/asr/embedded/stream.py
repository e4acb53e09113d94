"""One track's stream: audio in, end points from the VAD, texts from the inference process.

Comes in: PCM s16le at 16 kHz. Goes out: interims of the open utterance and finals in the order of
the utterances, with times measured in audio. It lives on the event loop; the VAD thread and the
inference process do the work.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec

from edge.asr.embedded.client import InferenceClient
from edge.asr.embedded.messages import Answer, Decode, Kind, Outcome
from edge.asr.embedded.segmenter import (
    RATE_HZ,
    Closed,
    Discarded,
    Opened,
    Paused,
    Resumed,
    Segmenter,
)
from edge.asr.embedded.settings import EmbeddedSettings
from edge.asr.embedded.utterance import Utterance
from edge.asr.interface import Emit, Interim, RecognizerStream, StreamEnded
from edge.asr.interface import Final as FinalEvent
from edge.errors import RecognizerBusy, RecognizerClosed, RecognizerError

if TYPE_CHECKING:
    from edge.asr.embedded.voice_activity import VoiceActivity

LANGUAGE: Final = "en"
CONTEXT_GAP: Final = RATE_HZ * 17 // 10
"""The utterance before is context while its end and the next start are no further apart."""
LONGEST_CONTEXT: Final = RATE_HZ * 8
LONGEST_WITH_CONTEXT: Final = RATE_HZ * 12
"""Samples of context and utterance together; a longer utterance needs no context."""
MOST_UNANSWERED: Final = RATE_HZ * 60
"""Samples of a stream's utterances that may wait for their text; past it decoding can't keep up."""
UNANSWERED_AT_EASE: Final = 2
"""So many utterances may wait before the stream reports them as backlog, which slows its feed."""
SPARE_LOAD: Final = 0.35
"""Below this load interims come twice as often."""


class EmbeddedCounts(msgspec.Struct):
    """What the streams of a worker did since it started."""

    finals: int = 0
    interims: int = 0
    interims_skipped: int = 0
    """Interims that were due and not decoded, because decoding was behind."""
    unlikely: int = 0
    """Finals dropped because the model was not sure of them."""


class EmbeddedStream(RecognizerStream):
    """See ``RecognizerStream``. Finals have exact times: the VAD counts samples."""

    def __init__(
        self,
        number: int,
        track: str,
        items: itertools.count[int],
        settings: EmbeddedSettings,
        voice: VoiceActivity,
        client: InferenceClient,
        counts: EmbeddedCounts,
        emit: Emit,
    ) -> None:
        self._number = number
        self._track = track
        self._items = items
        self._interim_samples = settings.embedded_interim_ms * RATE_HZ // 1000
        self._voice = voice
        self._client = client
        self._counts = counts
        self._emit = emit
        self._segmenter = Segmenter(settings.embedded_end_silence_ms)
        self._segments = itertools.count()
        self._track_voice = voice.open(self._judged)
        self._audio = bytearray()
        self._audio_from = 0
        """Sample number of the first sample in ``_audio``."""
        self._heard = 0
        """Samples sent to this stream."""
        self._open: Utterance | None = None
        self._unanswered: deque[Utterance] = deque()
        self._before: Utterance | None = None
        """The utterance closed last, while its audio is kept as context of the next."""
        self._commit_at: deque[int] = deque()
        self._drained: list[asyncio.Future[None]] = []
        self._ended = False

    def send(self, audio: bytes) -> None:
        if self._ended or not audio:
            return
        if not self._voice.feed(self._track_voice, audio):
            self._end(RecognizerBusy("embedded recognizer: a stream is a minute behind"))
            return
        self._audio += audio
        self._heard += len(audio) // 2

    @property
    def backlog_ms(self) -> float:
        samples = self._heard - self._segmenter.position
        waiting = len(self._unanswered) - UNANSWERED_AT_EASE
        if waiting > 0:
            samples += sum(each.length for each in islice(self._unanswered, waiting))
        return samples * 1000 / RATE_HZ

    def commit(self) -> None:
        if self._ended:
            return
        self._commit_at.append(self._heard)
        self._apply_commits()

    async def drain(self) -> None:
        self.commit()
        while not self._ended and (self._commit_at or self._unanswered):
            waiter = asyncio.get_running_loop().create_future()
            self._drained.append(waiter)
            await waiter

    async def close(self) -> None:
        self._end(None)

    def _judged(self, frames: list[tuple[float, float]]) -> None:
        """Take the VAD's word on the next frames."""
        for probability, loudness in frames:
            for decision in self._segmenter.step(probability, loudness):
                self._act(decision)
            self._apply_commits()
            if self._ended:
                return
        self._ask_interim()
        self._trim()
        self._tell_drained()

    def _apply_commits(self) -> None:
        """Carry out the commits whose audio has been judged, up to a part of a frame."""
        while self._commit_at and self._commit_at[0] - self._segmenter.position < 512:
            self._commit_at.popleft()
            decision = self._segmenter.flush()
            if decision is not None:
                self._act(decision)

    def _act(self, decision: Opened | Paused | Resumed | Closed | Discarded) -> None:
        utterance = self._open
        if isinstance(decision, Opened):
            self._open = Utterance(next(self._segments), f"{self._track}-{next(self._items)}")
            self._open.interim_at = decision.start
            return
        assert utterance is not None
        if isinstance(decision, Paused):
            utterance.interim_at = decision.end
            before = self._context(decision.start, decision.end)
            if before is None or before.answer is not None:
                self._decode(utterance, Kind.SPECULATIVE, decision.start, decision.end, before)
        elif isinstance(decision, Resumed):
            self._take_guess_as_interim(utterance)
        elif isinstance(decision, Closed):
            self._open = None
            self._close(utterance, decision)
        else:
            self._open = None

    def _close(self, utterance: Utterance, closed: Closed) -> None:
        utterance.closed = closed
        before = self._context(closed.start, closed.end)
        self._before = utterance if closed.end - closed.start <= LONGEST_CONTEXT else None
        self._unanswered.append(utterance)
        if utterance.guess is None:
            ask = self._prepare(utterance, Kind.FINAL, closed.start, closed.end, before)
            if before is not None and before.answer is None:
                before.ask_next = ask
            else:
                ask()
        self._emit_finals()
        if sum(each.length for each in self._unanswered) > MOST_UNANSWERED:
            self._end(RecognizerBusy("embedded recognizer: decoding cannot keep up"))

    def _take_guess_as_interim(self, utterance: Utterance) -> None:
        if utterance.guess is None:
            return
        answer, utterance.answer = utterance.answer, None
        if answer is None:
            utterance.interim, utterance.guess = utterance.guess, None
        else:
            utterance.guess = None
            self._emit_interim(utterance, answer)

    def _ask_interim(self) -> None:
        utterance = self._open
        if utterance is None or utterance.guess is not None or not self._segmenter.has_speech:
            return
        due = self._interim_samples >> (self._client.load < SPARE_LOAD)
        position = self._segmenter.position
        if position - utterance.interim_at < due:
            return
        utterance.interim_at = position
        if utterance.interim is not None:
            self._counts.interims_skipped += 1
            return
        start = self._segmenter.start
        before = self._context(start, position)
        self._decode(utterance, Kind.INTERIM, start, position, before)

    def _decode(
        self, utterance: Utterance, kind: Kind, start: int, end: int, before: Utterance | None
    ) -> None:
        self._prepare(utterance, kind, start, end, before)()

    def _prepare(
        self, utterance: Utterance, kind: Kind, start: int, end: int, before: Utterance | None
    ) -> Callable[[], None]:
        """Cut the audio now; the request goes out, and its tokens are chosen, when called."""
        begin = before.closed.start if before is not None and before.closed is not None else start
        pcm = self._cut(begin, end)

        def ask() -> None:
            prefix = before.tokens if before is not None else ()
            number = self._client.next_id()
            if kind is Kind.INTERIM:
                utterance.interim = number
            else:
                utterance.guess = number
            context = start - begin if prefix else 0
            heard = pcm if prefix else pcm[(start - begin) * 2 :]
            request = Decode(number, self._number, utterance.segment, kind, heard, context, prefix)
            self._client.decode(request, partial(self._answered, utterance))

        return ask

    def _context(self, start: int, end: int) -> Utterance | None:
        """The utterance before the audio from ``start`` to ``end``, if it is near enough."""
        before = self._before
        if before is not None and before.closed is not None:
            near = start - before.closed.end <= CONTEXT_GAP
            if near and end - before.closed.start <= LONGEST_WITH_CONTEXT:
                return before
        return None

    def _answered(self, utterance: Utterance, answer: Answer) -> None:
        if self._ended:
            return
        if answer.id == utterance.guess:
            self._guess_answered(utterance, answer)
        elif answer.id == utterance.interim:
            utterance.interim = None
            if utterance is self._open:
                self._emit_interim(utterance, answer)

    def _guess_answered(self, utterance: Utterance, answer: Answer) -> None:
        if answer.outcome is Outcome.DONE:
            utterance.answer = answer
            if utterance.closed is not None:
                if utterance.ask_next is not None:
                    utterance.ask_next()
                    utterance.ask_next = None
                self._emit_finals()
        elif utterance.closed is None:
            utterance.guess = None  # closing asks again
        else:
            self._end(_error(answer))

    def _emit_interim(self, utterance: Utterance, answer: Answer) -> None:
        if answer.outcome is not Outcome.DONE:
            self._counts.interims_skipped += 1
        elif answer.is_likely:
            self._counts.interims += 1
            self._emit(
                Interim(
                    item_id=utterance.item_id,
                    text=answer.text,
                    confidence=math.exp(answer.mean_log_p),
                    language=LANGUAGE,
                )
            )

    def _emit_finals(self) -> None:
        """Emit what is answered, in the order of the utterances."""
        while self._unanswered and not self._ended:
            utterance = self._unanswered[0]
            answer, closed = utterance.answer, utterance.closed
            if answer is None or closed is None:
                break
            self._unanswered.popleft()
            if not answer.is_likely:
                self._counts.unlikely += bool(answer.text)
                continue
            self._counts.finals += 1
            self._emit(
                FinalEvent(
                    item_id=utterance.item_id,
                    text=answer.text,
                    start_ms=closed.speech_start * 1000 / RATE_HZ,
                    end_ms=closed.end * 1000 / RATE_HZ,
                    confidence=math.exp(answer.mean_log_p),
                    language=LANGUAGE,
                )
            )
        self._tell_drained()

    def _cut(self, start: int, end: int) -> bytes:
        begin = (start - self._audio_from) * 2
        return bytes(memoryview(self._audio)[begin : begin + (end - start) * 2])

    def _trim(self) -> None:
        """Forget audio that no segment needs any more."""
        needed = self._segmenter.needed_from
        before = self._before.closed if self._before is not None else None
        if before is not None:
            if needed - before.end > CONTEXT_GAP:
                self._before = None
            else:
                needed = min(needed, before.start)
        unneeded = needed - self._audio_from
        if unneeded > 0:
            del self._audio[: unneeded * 2]
            self._audio_from += unneeded

    def _tell_drained(self) -> None:
        if self._ended or not (self._commit_at or self._unanswered):
            waiters, self._drained = self._drained, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _end(self, error: RecognizerError | None) -> None:
        if self._ended:
            return
        self._ended = True
        self._voice.close(self._track_voice)
        for utterance in (*self._unanswered, self._open):
            if utterance is not None:
                for request in (utterance.guess, utterance.interim):
                    if request is not None:
                        self._client.forget(request)
        self._audio.clear()
        self._emit(StreamEnded(error=error))
        self._tell_drained()


def _error(answer: Answer) -> RecognizerError:
    if answer.outcome is Outcome.REFUSED:
        return RecognizerBusy("embedded recognizer: too many segments wait on this machine")
    return RecognizerClosed(
        "embedded recognizer: a segment could not be decoded; the inference process is away, or "
        "died of it again and again"
    )
