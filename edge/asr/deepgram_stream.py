"""One open connection to Deepgram's ``/v1/listen``: audio out, transcripts in.

Comes in: PCM, Opus packets or Ogg pages, commits, and the service's messages. Goes out:
``StreamEvent`` by way of ``emit``. ``edge.asr.deepgram`` opens it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from _native.opus import OpusError, run_samples
from edge.asr.deepgram_events import (
    CLOSE_STREAM,
    FINALIZE,
    KEEP_ALIVE,
    ErrorMessage,
    Metadata,
    Results,
    as_error,
    decode,
    language,
    runs,
)
from edge.asr.interface import AudioWanted, Emit, Final, Interim
from edge.asr.service_stream import ServiceStream
from edge.asr.upstream import Ending, Upstream

NAME = "Deepgram"
KEEP_ALIVE_S = 5.0
"""Without audio or this message the service closes a connection after 10 s (NET-0001)."""
OVERDUE_MS = 2000.0
"""Results come for every second of audio; so much without one is owed."""
NORMAL_CLOSURE = 1000
_SAMPLES_PER_MS = 48
_UNKNOWN_PACKET_MS = 20.0
_OGG_HEAD_BYTES = 27


class DeepgramCounts(msgspec.Struct):
    """What the streams of a worker met since it started."""

    messages_malformed: int = 0
    """Messages of a known type in an unknown form."""


class DeepgramStream(ServiceStream):
    """See ``RecognizerStream``; made by ``DeepgramRecognizer.open``."""

    silent_limit_s = 8.0
    """With interim results on, every second of audio is answered, silent or not."""

    def __init__(
        self,
        connection: Upstream,
        wanted: AudioWanted,
        new_item: Callable[[], str],
        include_language: bool,
        counts: DeepgramCounts,
        emit: Emit,
    ) -> None:
        """``new_item`` names utterances; ``include_language`` puts the language into the text."""
        super().__init__(NAME, connection, emit)
        self._new_item = new_item
        self._include_language = include_language
        self._counts = counts
        self._duration_ms = _measure(wanted)
        self._items: list[str] = []
        """Names of what the open result holds, one for each speaker's run."""
        self._interim = False
        """Whether the open result has words so far."""
        self._spoke_s = time.monotonic()
        """When the last message was sent."""
        self._sent_ms = 0.0
        self._heard_ms = 0.0
        """End of the newest result."""
        self._committed = True
        """Whether no audio has followed the last ``Finalize``."""
        self._closing = False
        self._listen()
        self._later("keep alive", KEEP_ALIVE_S, self._keep_alive)

    @property
    def turn_open(self) -> bool:
        """Words have no final yet, 2 s of audio have no result of any kind, or the end is due."""
        if self._ended:
            return False
        ending = self._closing and not self._settled.is_set()
        return self._interim or ending or self._unheard_ms >= OVERDUE_MS

    def send(self, audio: bytes) -> None:
        if audio and not (self._ended or self._closing):
            self._note_sent(duration_ms := self._duration_ms(audio))
            self._put(self._connection.send_binary, audio, duration_ms)

    def send_packets(self, packets: Sequence[bytes]) -> None:
        if packets and not (self._ended or self._closing):
            batch = packets if isinstance(packets, list) else list(packets)
            duration_ms = _packets_ms(batch)
            self._note_sent(duration_ms)
            if not self._outbox.put(self._connection.send_binary_many, batch, duration_ms):
                self._heed_queue()

    def commit(self) -> None:
        if not (self._committed or self._ended or self._closing):
            self._committed = True
            self._say(FINALIZE)

    async def drain(self) -> None:
        self._close_stream()
        await self._settled.wait()

    async def close(self) -> None:
        self._close_stream()
        await super().close()

    def ended(self, ending: Ending) -> None:
        """After ``CloseStream`` a normal closure is the wanted end, unless results lack."""
        told = not self._interim and self._unheard_ms < OVERDUE_MS
        wanted = told and ending.code == NORMAL_CLOSURE
        if self._closing and (self._settled.is_set() or wanted):
            self._settled.set()
        else:
            super().ended(ending)

    @property
    def _unheard_ms(self) -> float:
        return self._sent_ms - self._heard_ms

    def _note_sent(self, duration_ms: float) -> None:
        self._spoke_s = time.monotonic()
        self._sent_ms += duration_ms
        self._committed = False

    def _close_stream(self) -> None:
        if not (self._closing or self._ended):
            self._closing = True
            self._stop_timer("keep alive")
            self._say(CLOSE_STREAM)

    def _keep_alive(self) -> None:
        quiet_s = time.monotonic() - self._spoke_s
        if quiet_s >= KEEP_ALIVE_S:
            self._say(KEEP_ALIVE)
            self._spoke_s, quiet_s = time.monotonic(), 0.0
        self._later("keep alive", KEEP_ALIVE_S - quiet_s, self._keep_alive)

    def _take(self, message: bytes) -> None:
        try:
            taken = decode(message)
        except msgspec.DecodeError:
            self._counts.messages_malformed += 1
            return
        match taken:
            case Results():
                self._accepted = True
                self._results(taken)
            case Metadata() if self._closing:
                self._settled.set()
            case ErrorMessage():
                said = taken.description or taken.message
                self._end(as_error(NAME, taken.variant, said))

    def _results(self, results: Results) -> None:
        dealt_ms = min((results.start + results.duration) * 1000, self._sent_ms)
        self._heard_ms = max(self._heard_ms, dealt_ms)
        heard = language(results)
        suffix = f" [{heard}]" if heard and self._include_language else ""
        said = runs(results)
        if not results.is_final:
            self._interim = bool(said)
            for number, run in enumerate(said):
                self._tell(
                    Interim(
                        item_id=self._item(number),
                        text=run.text + suffix,
                        confidence=run.confidence,
                        language=heard,
                        speaker=run.speaker,
                    )
                )
            return
        for number, run in enumerate(said):
            last = number == len(said) - 1
            self._tell(
                Final(
                    item_id=self._item(number),
                    text=run.text + suffix,
                    start_ms=run.start_ms,
                    end_ms=run.end_ms,
                    dealt_ms=dealt_ms if last else min(run.end_ms, dealt_ms),
                    confidence=run.confidence,
                    language=heard,
                    speaker=run.speaker,
                )
            )
        if not said:
            start_ms = results.start * 1000
            self._tell(Final(item_id=self._item(0), text="", start_ms=start_ms, end_ms=dealt_ms))
        if said or self._interim:
            self._items.clear()
        self._interim = False

    def _item(self, number: int) -> str:
        while len(self._items) <= number:
            self._items.append(self._new_item())
        return self._items[number]


class OggClock:
    """How long the pages of one logical Ogg Opus stream last, by their granule positions."""

    def __init__(self) -> None:
        self._position: int | None = None

    def advance_ms(self, pages: bytes) -> float:
        """Milliseconds that these whole pages add (RFC 7845 section 4)."""
        at, begin, position = 0, self._position, self._position
        while at + _OGG_HEAD_BYTES <= len(pages):
            granule = int.from_bytes(pages[at + 6 : at + 14], "little", signed=True)
            if granule >= 0:  # -1: no packet ends on the page
                position = granule
                begin = granule if begin is None else begin
            segments = pages[at + 26]
            lacing = pages[at + _OGG_HEAD_BYTES : at + _OGG_HEAD_BYTES + segments]
            at += _OGG_HEAD_BYTES + segments + sum(lacing)
        self._position = position
        return max((position or 0) - (begin or 0), 0) / _SAMPLES_PER_MS


def _measure(wanted: AudioWanted) -> Callable[[bytes], float]:
    """How to tell the milliseconds of what is sent in this form."""
    if wanted.encoding == "ogg":
        return OggClock().advance_ms
    if wanted.encoding == "opus":
        return lambda packet: _packets_ms([packet])
    bytes_per_ms = wanted.rate_hz * 2 / 1000
    return lambda pcm: len(pcm) / bytes_per_ms


def _packets_ms(packets: list[bytes]) -> float:
    try:
        return run_samples(packets) / _SAMPLES_PER_MS
    except OpusError:
        return _UNKNOWN_PACKET_MS * len(packets)
