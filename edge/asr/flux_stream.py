"""One open connection to Deepgram Flux: audio out in even frames, turns in.

Comes in: PCM at 16 kHz, commits, and the service's messages. Goes out: ``StreamEvent`` by way of
``emit``. ``edge.asr.flux`` opens it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

import msgspec

from edge.asr.deepgram_events import as_error, mean
from edge.asr.flux_events import (
    CLOSE_STREAM,
    FORCE_END_TURN,
    Connected,
    FatalError,
    Message,
    TurnInfo,
    Warned,
    decode,
)
from edge.asr.interface import Emit, EngineMessage, Final, Interim
from edge.asr.service_stream import ServiceStream
from edge.asr.upstream import Ending, Upstream
from edge.errors import RecognizerError
from edge.logs import get_logger

_log = get_logger("edge.asr.flux")

NAME = "Deepgram Flux"
RATE_HZ = 16000
BYTES_PER_MS = RATE_HZ * 2 // 1000
FRAME_MS = 80
"""What the vendor advises to send at once."""
FRAME_BYTES = FRAME_MS * BYTES_PER_MS
STARVED_S = 0.25
"""Without audio for so long an open turn is given silence, or it could never end."""
LATE_S = 0.1
"""A look that comes this late says that the worker stood still: audio may be there unread."""
MOST_UNREPORTED_MS = 2000.0
"""Audio that a service that lives may leave without a report, whether it holds speech or not."""
MOST_UNHEARD_MS = 1000.0
"""Audio at the end of a stream that the service need not have reported on before it hangs up."""


class FluxCounts(msgspec.Struct):
    """What the streams of a worker met since it started."""

    messages_malformed: int = 0
    """Messages of a known type in an unknown form."""
    messages_missed: int = 0
    """Messages that the service numbered and that never came."""
    turns_unended: int = 0
    """Turns that another followed without their end having been told."""
    silence_ms: int = 0
    """Silence sent so that turns could end."""


class Turn(msgspec.Struct):
    """An open turn, as far as it is known. Times are milliseconds of the connection's audio."""

    index: int
    item_id: str
    start_ms: float
    heard_ms: float = 0.0
    """Up to where it has been heard."""
    text: str = ""
    info: TurnInfo | None = None


class FluxStream(ServiceStream):
    """See ``RecognizerStream``; made by ``FluxRecognizer.open``."""

    silent_limit_s = 3.0
    """An open turn is reported on about every quarter of a second."""

    def __init__(
        self,
        connection: Upstream,
        new_item: Callable[[], str],
        counts: FluxCounts,
        emit: Emit,
        *,
        verbatim: bool = False,
        is_behind: Callable[[], bool] | None = None,
    ) -> None:
        """``new_item`` names turns; ``verbatim`` emits the service's messages, too; ``is_behind``
        as in ``StreamRequest``."""
        super().__init__(NAME, connection, emit)
        self._verbatim = verbatim
        self._is_behind = is_behind
        self._new_item = new_item
        self._counts = counts
        self._gathered = bytearray()
        """Audio that does not yet fill a frame."""
        self._base = TimeBase()
        self._audio_s = time.monotonic()
        """When audio last came, or silence in its place was sent."""
        self._look_s = math.inf
        """When audio will next be looked for."""
        self._turn: Turn | None = None
        self._turn_ended = asyncio.Event()
        self._next_message = 0
        self._heard_ms = 0.0
        self._committed = True
        """Whether no audio has come since the last commit."""
        self._closing = False
        self._listen()

    @property
    def turn_open(self) -> bool:
        """A turn has begun, audio lacks the reports that even silence gets, or the end is due."""
        if self._ended:
            return False
        unheard_ms = self._base.sent_ms - self._heard_ms
        ending = self._closing and not self._settled.is_set()
        return self._turn is not None or unheard_ms >= MOST_UNREPORTED_MS or ending

    def send(self, audio: bytes) -> None:
        if not audio or self._ended or self._closing:
            return
        self._audio_s = time.monotonic()
        self._committed = False
        self._gathered += audio
        whole = len(self._gathered) // FRAME_BYTES * FRAME_BYTES
        if whole:
            self._send_frames(bytes(self._gathered[:whole]))
            del self._gathered[:whole]

    def commit(self) -> None:
        if self._committed or self._ended or self._closing:
            return
        self._committed = True
        self._send_rest()
        self._say(FORCE_END_TURN)

    async def drain(self) -> None:
        """An open turn is ended first, whose answer holds all its text; then the connection is."""
        self.commit()
        while self._turn is not None and not self._ended:
            self._turn_ended.clear()
            await self._turn_ended.wait()
        self._close_stream()
        await self._settled.wait()

    async def close(self) -> None:
        self._close_stream()
        await super().close()

    def ended(self, ending: Ending) -> None:
        """After ``CloseStream`` the service reports once more, the whole turn, and hangs up.

        If audio lacks its report, the connection was lost. Without a close frame (RFC 6455 7.1.5)
        it has to be complete; with one, no more than the last moment of an open turn may lack it.
        """
        unheard_ms = self._base.sent_ms - self._heard_ms
        if ending.code is None:
            lost = unheard_ms > FRAME_MS
        else:
            lost = self._turn is not None and unheard_ms > MOST_UNHEARD_MS
        if not self._closing or lost:
            super().ended(ending)
            return
        self._end_turn(self._base.sent_ms)
        self._settled.set()

    def _end(self, error: RecognizerError | None) -> None:
        super()._end(error)
        self._turn_ended.set()

    def _send_frames(self, audio: bytes) -> None:
        self._base.audio(len(audio) / BYTES_PER_MS)
        self._put_frames(audio)

    def _put_frames(self, audio: bytes) -> None:
        frames = [audio[at : at + FRAME_BYTES] for at in range(0, len(audio), FRAME_BYTES)]
        self._put(self._connection.send_binary_many, frames, len(audio) / BYTES_PER_MS)

    def _send_rest(self) -> None:
        if self._gathered:
            rest, self._gathered = bytes(self._gathered), bytearray()
            self._send_frames(rest)

    def _close_stream(self) -> None:
        if not (self._closing or self._ended):
            self._send_rest()
            self._closing = True
            self._stop_timer("starved")
            self._say(CLOSE_STREAM)

    def _watch_starvation(self) -> None:
        """While a turn is open and no audio comes, put silence in its place, in real time.

        Audio that waits in a busy worker would have it in the middle of a word.
        """
        if self._turn is None or self._closing:
            return
        now_s = time.monotonic()
        if now_s - self._look_s > LATE_S or (self._is_behind is not None and self._is_behind()):
            self._audio_s = now_s
        lacking_s = now_s - self._audio_s
        if lacking_s >= STARVED_S:
            self._send_rest()
            silence_ms = round(lacking_s * 1000)
            self._base.silence(silence_ms)
            self._counts.silence_ms += silence_ms
            self._put_frames(bytes(silence_ms * BYTES_PER_MS))
            self._audio_s, lacking_s = now_s, 0.0
        self._look_s = self._audio_s + STARVED_S
        self._later("starved", STARVED_S - lacking_s, self._watch_starvation)

    def _take(self, message: bytes) -> None:
        try:
            taken = decode(message)
        except msgspec.DecodeError:
            self._counts.messages_malformed += 1
            return
        if taken is None:
            self._next_message += 1  # of a type that this code has not heard of, but counted
            return
        self._accepted = True
        self._counts.messages_missed += max(taken.sequence_id - self._next_message, 0)
        self._next_message = taken.sequence_id + 1
        if isinstance(taken, TurnInfo) and self._turn and taken.turn_index > self._turn.index:
            self._counts.turns_unended += 1
            self._end_turn(self._turn.heard_ms)
        if self._verbatim:
            self._hand_on(taken, message)
        match taken:
            case TurnInfo():
                self._report(taken)
            case FatalError():
                self._end(as_error(NAME, taken.code, taken.description))
            case Warned():
                _log.warning("flux warns", code=taken.code or "")

    def _hand_on(self, taken: Message, body: bytes) -> None:
        """Emit what the service said as it said it."""
        if isinstance(taken, Connected):
            self._tell(EngineMessage(body=body, kind="Connected"))
        elif isinstance(taken, TurnInfo):
            place = self._base.audio_ms
            self._tell(
                EngineMessage(
                    body=body,
                    kind=taken.event,
                    turn=taken.turn_index,
                    start_ms=place(taken.audio_window_start * 1000),
                    end_ms=place(taken.audio_window_end * 1000),
                    is_blank=not taken.transcript.strip(),
                )
            )

    def _report(self, info: TurnInfo) -> None:
        heard_ms = info.audio_window_end * 1000
        self._heard_ms = max(self._heard_ms, heard_ms)
        turn = self._turn
        if info.event == "EndOfTurn":
            turn = turn or self._open_turn(info)
            turn.heard_ms, turn.text, turn.info = heard_ms, info.transcript, info
            self._end_turn(heard_ms)
            return
        if turn is None:
            if info.event == "Update" and not info.transcript.strip():
                return  # nothing has been said yet
            turn = self._open_turn(info)
        turn.heard_ms = heard_ms
        if info.transcript == turn.text:
            return
        turn.text, turn.info = info.transcript, info
        if turn.text.strip():
            self._tell(
                Interim(
                    item_id=turn.item_id,
                    text=turn.text,
                    confidence=mean(word.confidence for word in info.words),
                    language=info.languages[0] if info.languages else None,
                )
            )

    def _open_turn(self, info: TurnInfo) -> Turn:
        turn = Turn(info.turn_index, self._new_item(), info.audio_window_start * 1000)
        self._turn, self._look_s = turn, math.inf
        self._watch_starvation()
        return turn

    def _end_turn(self, until_ms: float) -> None:
        """Make what is known of the open turn its final; all audio before ``until_ms`` is in it."""
        turn, self._turn = self._turn, None
        self._turn_ended.set()
        self._stop_timer("starved")
        if turn is None:
            return
        words = turn.info.words if turn.info is not None else ()
        languages = turn.info.languages if turn.info is not None else None
        timed = [word for word in words if word.start is not None and word.end is not None]
        start_ms = (timed[0].start or 0.0) * 1000 if timed else turn.start_ms
        end_ms = (timed[-1].end or 0.0) * 1000 if timed else until_ms
        place = self._base.audio_ms
        self._tell(
            Final(
                item_id=turn.item_id,
                text=turn.text,
                start_ms=place(start_ms),
                end_ms=place(end_ms),
                dealt_ms=place(min(until_ms, self._base.sent_ms)),
                confidence=mean(word.confidence for word in words),
                language=languages[0] if languages else None,
            )
        )


class TimeBase:
    """From the service's clock, which counts silence made up here, to that of the audio given."""

    def __init__(self) -> None:
        self.sent_ms = 0.0
        """On the service's clock."""
        self._silences: list[tuple[float, float]] = []
        """Begin on the service's clock, and length; those next to each other are one."""

    def audio(self, duration_ms: float) -> None:
        """Audio was sent."""
        self.sent_ms += duration_ms

    def silence(self, duration_ms: float) -> None:
        """Silence was sent that nobody gave."""
        if self._silences and sum(self._silences[-1]) >= self.sent_ms:
            begin_ms, length_ms = self._silences[-1]
            self._silences[-1] = (begin_ms, length_ms + duration_ms)
        else:
            self._silences.append((self.sent_ms, duration_ms))
        self.sent_ms += duration_ms

    def audio_ms(self, service_ms: float) -> float:
        """Milliseconds of given audio before a moment of the service's clock."""
        made_up_ms = 0.0
        for begin_ms, length_ms in self._silences:
            if begin_ms >= service_ms:
                break
            made_up_ms += min(length_ms, service_ms - begin_ms)
        return service_ms - made_up_ms
