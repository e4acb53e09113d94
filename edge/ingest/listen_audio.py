"""Audio of the plain socket on its way to a track: chunks of one size, on a clock of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from _native.chunks import ChunkIntake
from edge.audio.pcm import PcmFormat

FORMAT = PcmFormat(rate_hz=16000, channels=1)
CHUNK_MS = 80
"""What recognizers advise to be sent at once."""
SAMPLE_BYTES = 2
CHUNK_BYTES = FORMAT.rate_hz * SAMPLE_BYTES * CHUNK_MS // 1000
CLOCK_HZ = 48000
REST_S = 0.1
"""A chunk that nothing has completed for so long is played as it is."""
PAUSE_S = 2.0
"""A sender that is behind real time by more has paused; by less, it has a bad network."""


class SampleClock:
    """Media times of audio that carries none: samples are counted, long pauses by the clock."""

    __slots__ = ("_began_s", "_end", "_rate_hz")

    def __init__(self, rate_hz: int = FORMAT.rate_hz) -> None:
        self._rate_hz = rate_hz
        self._end = 0
        self._began_s: float | None = None
        """When the sound of sample 0 was made, by the arrival that was least late."""

    def place(self, samples: int, now_s: float) -> int:
        """The time of the first of so many samples that came now, in 48 kHz samples."""
        start, end_s = self._end, (self._end + samples) / self._rate_hz
        if self._began_s is None or now_s - self._began_s < end_s:
            self._began_s = now_s - end_s
        late_s = now_s - self._began_s - end_s
        if late_s > PAUSE_S:
            start += round(late_s * self._rate_hz)
        self._end = start + samples
        return start * CLOCK_HZ // self._rate_hz


class Gathering:
    """Makes chunks of one connection's frames; ``close`` it with the connection.

    ``play`` is given each chunk, and whatever is there when a sender pauses: whole samples. Half a
    sample waits for its other half.
    """

    def __init__(self, play: Callable[[list[bytes]], None]) -> None:
        self.intake = ChunkIntake(CHUNK_BYTES)
        """Takes frames natively; ``taken`` is owed after it has."""
        self._play = play
        self._looked_at = 0
        self._timer: asyncio.TimerHandle | None = None

    def taken(self) -> float:
        """The intake has taken frames; it does not tell when the next chunk will be complete."""
        chunks = self.intake.chunks
        if chunks:
            self._play(chunks)
            chunks.clear()
        if self._timer is None:
            self._look_later()
        return 0.0

    def put(self, data: bytes) -> None:
        """A frame that the intake was not offered: it came in fragments, or is long."""
        self.intake.put(data)
        self.taken()

    def flush(self) -> None:
        """Play what is left."""
        if rest := self.intake.flush():
            self._play([rest])

    def close(self) -> None:
        """Look after nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_later(self) -> None:
        self._looked_at = self.intake.size
        self._timer = asyncio.get_running_loop().call_later(REST_S, self._look)

    def _look(self) -> None:
        if self.intake.size == self._looked_at:
            self._timer = None
            self.flush()
        else:
            self._look_later()
