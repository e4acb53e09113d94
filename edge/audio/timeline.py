"""From positions in a stream of audio to times on another clock."""

from __future__ import annotations

from bisect import bisect_right

from edge.audio.steps import CLOCK_HZ

_SAMPLES_PER_MS = CLOCK_HZ // 1000
_MAX_MARKS = 256
_FAR = 1 << 63


class Timeline:
    """A map that runs at the same pace everywhere and jumps at marks.

    A track's timeline maps audio milliseconds (since its first sample) to session milliseconds
    (since the connection's time zero). It keeps the newest 256 marks; what is older is mapped by
    the oldest kept. Without a mark it maps each time to itself.
    """

    __slots__ = ("_positions", "_times")

    def __init__(self) -> None:
        self._positions: list[int] = []
        self._times: list[int] = []

    def mark(self, position: int, time: int) -> None:
        """From ``position`` on, which may not lie before the last mark, the clock says ``time``.

        Both count 48 kHz samples. Times beyond 64 bits are held at that bound.
        """
        time = max(-_FAR, min(time, _FAR))
        if self._positions and self._positions[-1] == position:
            self._times[-1] = time
            return
        self._positions.append(position)
        self._times.append(time)
        if len(self._positions) > _MAX_MARKS:
            del self._positions[0], self._times[0]

    def map_ms(self, at_ms: float) -> float:
        """The other clock's time at ``at_ms``; at a mark it has jumped already."""
        if not self._positions:
            return at_ms
        last = max(0, bisect_right(self._positions, at_ms * _SAMPLES_PER_MS) - 1)
        return at_ms + (self._times[last] - self._positions[last]) / _SAMPLES_PER_MS
