"""Where utterances begin and end, from one speech probability per 32 ms frame.

Comes in: probability and loudness of each frame, in order. Goes out: decisions, with positions in
samples since the stream's start. No I/O, no clock, no audio: a machine that tests can drive.

The frame, the thresholds and their hysteresis follow Silero's own iterator (snakers4/silero-vad,
``VADIterator``): speech starts at 0.5 and counts as over below 0.35.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

RATE_HZ: Final = 16000
FRAME: Final = 512
FRAME_MS: Final = FRAME * 1000 / RATE_HZ

SPEECH_STARTS: Final = 0.5
SPEECH_ENDS: Final = 0.35
PRE_ROLL: Final = RATE_HZ * 288 // 1000
"""Audio kept before the first speech frame, so that a soft first sound is not lost."""
TAIL: Final = FRAME * 2
"""Audio kept after the last speech frame."""
SPECULATE: Final = FRAME * 6
"""Silence after which a final is decoded on the guess that the utterance is over."""
FEWEST_SPEECH_FRAMES: Final = 3
"""Less speech than this is a click."""
LONGEST: Final = RATE_HZ * 20
"""The model's limit for one segment."""
CUT_WINDOW: Final = RATE_HZ * 4
"""A segment that reaches the limit is cut at its quietest frame within this last stretch."""
SHORTER_PAUSES: Final = (
    (RATE_HZ * 15, FRAME * 3),
    (RATE_HZ * 12, FRAME * 5),
    (RATE_HZ * 8, FRAME * 8),
)
"""(open for at least, silence that ends it then): a long segment takes a softer pause."""


class Opened(msgspec.Struct, frozen=True):
    """Speech began; the segment's audio starts at ``start`` (pre-roll included)."""

    start: int


class Paused(msgspec.Struct, frozen=True):
    """Silence long enough to guess that the utterance is over; not yet certain."""

    start: int
    end: int


class Resumed(msgspec.Struct, frozen=True):
    """The guess was wrong: speech goes on in the same segment."""


class Closed(msgspec.Struct, frozen=True):
    """The utterance is over. Audio before ``end`` belongs to no later segment."""

    start: int
    end: int
    speech_start: int
    speech_end: int


class Discarded(msgspec.Struct, frozen=True):
    """The open segment held too little speech to be an utterance."""


Decision = Opened | Paused | Resumed | Closed | Discarded


class Segmenter:
    """One stream's end points. ``step`` for each frame, ``flush`` to end an utterance early."""

    def __init__(self, end_silence_ms: int) -> None:
        self._end_silence = max(FRAME, round(end_silence_ms / FRAME_MS) * FRAME)
        self.position = 0
        """Samples judged so far."""
        self.is_open = False
        self.start = 0
        """First sample of the open segment."""
        self._free_from = 0
        self._speech_start = 0
        self._speech_end = 0
        self._speech_frames = 0
        self._in_silence = False
        self._paused = False
        self._quietest: deque[tuple[float, int]] = deque()

    @property
    def needed_from(self) -> int:
        """First sample that a segment, open or to come, may still need."""
        if self.is_open:
            return self.start
        return max(self._free_from, self.position - PRE_ROLL)

    @property
    def has_speech(self) -> bool:
        """Whether the open segment holds enough speech to be worth decoding."""
        return self.is_open and self._speech_frames >= FEWEST_SPEECH_FRAMES

    def step(self, probability: float, loudness: float) -> list[Decision]:
        """Judge the next frame; at most a closing and an opening come out of one frame."""
        begin = self.position
        self.position += FRAME
        if not self.is_open:
            if probability < SPEECH_STARTS:
                return []
            self._open(max(self._free_from, begin - PRE_ROLL), begin)
            return [Opened(self.start)]
        self._remember(loudness, begin)
        if probability >= SPEECH_STARTS or (probability >= SPEECH_ENDS and not self._in_silence):
            return self._speech(probability)
        return self._silence()

    def flush(self) -> Closed | Discarded | None:
        """End the open segment where it is; None when there is none."""
        if not self.is_open:
            return None
        return self._close(min(self.position, self._speech_end + TAIL))

    def _open(self, start: int, speech_start: int) -> None:
        self.is_open = True
        self.start = start
        self._speech_start = speech_start
        self._speech_end = self.position
        self._speech_frames = 1
        self._in_silence = False
        self._paused = False
        self._quietest.clear()

    def _speech(self, probability: float) -> list[Decision]:
        self._speech_end = self.position
        self._in_silence = False
        self._speech_frames += probability >= SPEECH_STARTS
        decisions: list[Decision] = []
        if self._paused:
            self._paused = False
            decisions.append(Resumed())
        if self.position - self.start >= LONGEST:
            decisions += self._cut()
        return decisions

    def _silence(self) -> list[Decision]:
        self._in_silence = True
        silence = self.position - self._speech_end
        if silence >= self._enough_silence():
            return [self._close(min(self.position, self._speech_end + TAIL))]
        if silence >= SPECULATE and not self._paused and self.has_speech:
            self._paused = True
            return [Paused(self.start, self.position)]
        return []

    def _enough_silence(self) -> int:
        length = self._speech_end - self.start
        for longer_than, pause in SHORTER_PAUSES:
            if length >= longer_than:
                return min(pause, self._end_silence)
        return self._end_silence

    def _close(self, end: int) -> Closed | Discarded:
        enough = self.has_speech
        self.is_open = False
        self._free_from = end
        if not enough:
            return Discarded()
        return Closed(self.start, end, self._speech_start, self._speech_end)

    def _remember(self, loudness: float, begin: int) -> None:
        """Keep the frames that could be the quietest of the last stretch, loudest dropped."""
        while self._quietest and self._quietest[-1][0] >= loudness:
            self._quietest.pop()
        self._quietest.append((loudness, begin))
        while self._quietest[0][1] < self.position - CUT_WINDOW:
            self._quietest.popleft()

    def _cut(self) -> list[Decision]:
        """Split speech without a pause in the middle of its quietest frame."""
        at = self._quietest[0][1] + FRAME // 2
        first = Closed(self.start, at, self._speech_start, at)
        frames_after = (self.position - at) // FRAME
        self._free_from = at
        self._open(at, at)
        self._speech_frames = max(1, frames_after)
        return [first, Opened(at)]
