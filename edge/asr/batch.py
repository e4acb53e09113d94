"""One piece of audio as a whole: a recognizer's stream is opened for it, and closed after it.

Comes in: PCM that is complete. Goes out: the finals of all of it, in the order of their times.
``edge.meeting`` calls it for audio that is stored; live tracks have their supervisors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import msgspec

from _native.resample import Resampler
from edge.asr.interface import Final, Recognizer, StreamEnded, StreamEvent, StreamRequest
from edge.errors import RecognizerClosed, RecognizerError, RecognizerRefused, RecognizerTimeout

PIECE_MS = 400
MOST_AHEAD_MS = 2000.0
"""Audio that may wait in a stream before more is given to it."""
LOOK_S = 0.02


class Recognized(msgspec.Struct, frozen=True):
    """What was said, by times in ms from the beginning of the audio, and who heard it."""

    finals: tuple[Final, ...]
    provider: str


class _Heard:
    """Keeps what a stream emits."""

    def __init__(self) -> None:
        self.finals: list[Final] = []
        self.ended: StreamEnded | None = None

    def __call__(self, event: StreamEvent) -> None:
        if isinstance(event, Final):
            if event.text.strip():
                self.finals.append(event)
        elif isinstance(event, StreamEnded):
            self.ended = event

    def check(self, name: str) -> None:
        """Raise what ended the stream, if something has."""
        if self.ended is not None:
            raise self.ended.error or RecognizerClosed(f"{name} ended before it had heard all")


async def recognize(
    recognizers: Sequence[Recognizer], pcm: bytes, rate_hz: int, track: str, deadline_s: float
) -> Recognized:
    """Let the first of ``recognizers`` that can hear mono 16-bit audio to its end.

    Each is tried once, all within the deadline; raises the ``RecognizerError`` of the last one.
    Cancelling it leaves nothing open.
    """
    failure: RecognizerError = RecognizerRefused("There is no recognizer to hear it")
    try:
        async with asyncio.timeout(deadline_s):
            for recognizer in recognizers:
                try:
                    finals = await _hear(recognizer, pcm, rate_hz, track)
                    return Recognized(finals, recognizer.name)
                except RecognizerError as error:
                    failure = error
    except TimeoutError:
        failure = RecognizerTimeout(f"{recognizer.name} took more than {deadline_s:g} s for it")
    raise failure


async def _hear(recognizer: Recognizer, pcm: bytes, rate_hz: int, track: str) -> tuple[Final, ...]:
    wanted = recognizer.wants_for("pcm")
    if wanted.encoding != "pcm16":
        raise RecognizerRefused(f"{recognizer.name} takes no PCM")
    heard = _Heard()
    stream = await recognizer.open(StreamRequest(track=track, source="pcm"), heard)
    try:
        for piece in _pieces(pcm, rate_hz, wanted.rate_hz):
            while heard.ended is None and stream.backlog_ms > MOST_AHEAD_MS:
                await asyncio.sleep(LOOK_S)
            heard.check(recognizer.name)
            stream.send(piece)
            await asyncio.sleep(0)
        await stream.drain()
        heard.check(recognizer.name)
    finally:
        await stream.close()
    return tuple(sorted(heard.finals, key=lambda final: (final.start_ms, final.end_ms)))


def _pieces(pcm: bytes, rate_hz: int, wanted_hz: int) -> Iterator[bytes]:
    """The audio at the rate that is wanted, cut."""
    size = rate_hz * PIECE_MS // 1000 * 2
    resampler = None if rate_hz == wanted_hz else Resampler(rate_hz, wanted_hz)
    for start in range(0, len(pcm), size):
        piece = pcm[start : start + size]
        yield piece if resampler is None else resampler.process(piece)
    if resampler is not None:
        yield resampler.flush()
