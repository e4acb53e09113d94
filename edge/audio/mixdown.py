"""Many tracks become one recording: sums on a common clock, kept in a file, clipped at the end."""

from __future__ import annotations

import math
import os
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from edge.audio.origin import MediaOrigin
from edge.audio.settings import TrackSettings
from edge.audio.track import AudioTrack

_SUM_BYTES = 4
_BLOCK_S = 4
_LONGEST_S = 24 * 3600
_WAV_BYTES = (1 << 32) - 1024
"""What a WAV file can hold: its sizes are 32-bit numbers."""

# Gaps are not filled here: what follows one is put where it belongs.
_SETTINGS = TrackSettings(asr_batch_ms=20, max_gap_fill_ms=0, replay_ms=1000)


class Mixdown:
    """Sums samples by their session time.

    ``sums`` is an empty file, open for reading and writing; it grows to four bytes a sample, memory
    does not grow. What lies before ``origin_ms`` or more than 24 hours after it is left out and
    counted.
    """

    def __init__(self, sums: BinaryIO, rate_hz: int, origin_ms: float) -> None:
        self._file = sums.fileno()
        self._rate_hz = rate_hz
        self._origin_ms = origin_ms
        self._longest = min(_LONGEST_S * rate_hz, _WAV_BYTES // 2)
        self._samples = 0
        self.left_out = 0
        """Samples outside the recording."""

    @property
    def duration_s(self) -> float:
        """Length of the recording so far."""
        return self._samples / self._rate_hz

    def add(self, session_ms: float, pcm: bytes) -> None:
        """Add mono 16-bit samples from this session time on."""
        samples = np.frombuffer(pcm, "<i2")
        start = round((session_ms - self._origin_ms) * self._rate_hz / 1000)
        first, last = max(0, -start), max(0, min(len(samples), self._longest - start))
        self.left_out += len(samples) - max(0, last - first)
        if last <= first:
            return
        at, samples = start + first, samples[first:last]
        there = np.zeros(len(samples), "<i4")
        if at < self._samples:
            before = os.pread(self._file, _SUM_BYTES * len(samples), _SUM_BYTES * at)
            there[: len(before) // _SUM_BYTES] = np.frombuffer(before, "<i4")
        there += samples
        os.pwrite(self._file, there.tobytes(), _SUM_BYTES * at)
        self._samples = max(self._samples, at + len(samples))

    def write_wav(self, path: Path) -> None:
        """Write the recording as mono 16-bit WAV; sums beyond 16 bits are clipped."""
        with wave.open(str(path), "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(self._rate_hz)
            for sums in self._blocks():
                out.writeframesraw(sums.clip(-32768, 32767).astype("<i2").tobytes())

    def _blocks(self) -> Iterator[np.ndarray[tuple[int], np.dtype[np.int32]]]:
        size = _SUM_BYTES * _BLOCK_S * self._rate_hz
        for at in range(0, _SUM_BYTES * self._samples, size):
            yield np.frombuffer(os.pread(self._file, size, at), "<i4")


class MixedTrack:
    """A track whose sound goes to a mixdown, each piece at its own session time."""

    def __init__(self, mixdown: Mixdown, rate_hz: int, origin: MediaOrigin) -> None:
        self.audio = AudioTrack(_SETTINGS, origin)
        self._mixdown = mixdown
        self._rate_hz = rate_hz
        self._feed = self.audio.open_feed(rate_hz, 0, self._place)
        self._feed.pump(math.inf)

    def _place(self, pcm: bytes) -> None:
        start_ms = self._feed.delivered_ms - len(pcm) * 500 / self._rate_hz
        self._mixdown.add(self.audio.timeline.map_ms(max(0.0, start_ms)), pcm)
