"""Where a live track's audio lies in its meeting: each piece was fed at a known place.

Comes in: pieces as they are fed, and when their chunks came. Goes out: the meeting's time of what a
recognizer says about the track, and how long it took.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque

import msgspec

MOST_RUNS = 1000
ARRIVALS = 600
"""Chunks whose arrival is remembered: what a recognizer says belongs to the last minutes."""
_SAME_MS = 0.5


class _Run(msgspec.Struct):
    """Audio that lies in the meeting as it lies in the track; both ends in ms."""

    end_ms: float
    meeting_end_ms: float


class TrackClock:
    """One track's; all times in ms."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []

    def fed(self, end_ms: float, meeting_end_ms: float) -> None:
        """The track ends at ``end_ms`` now, and that is ``meeting_end_ms`` of the meeting."""
        runs = self._runs
        if runs and abs(_offset(runs[-1]) - (meeting_end_ms - end_ms)) < _SAME_MS:
            runs[-1] = _Run(end_ms, meeting_end_ms)
            return
        runs.append(_Run(end_ms, meeting_end_ms))
        if len(runs) > MOST_RUNS:
            del runs[0]

    def meeting_ms(self, track_ms: float) -> float:
        """The time in the meeting of a time of the track, never beyond what was fed."""
        runs = self._runs
        if not runs:
            return track_ms
        at = min(bisect_left(runs, track_ms, key=lambda run: run.end_ms), len(runs) - 1)
        begins_ms = runs[at - 1].meeting_end_ms if at else 0.0
        meeting_ms = min(track_ms + _offset(runs[at]), runs[at].meeting_end_ms)
        return max(begins_ms, meeting_ms, 0.0)


class Arrivals:
    """When chunks came, on a monotonic clock."""

    def __init__(self) -> None:
        self._came: deque[tuple[int, float]] = deque(maxlen=ARRIVALS)

    def add(self, seq: int, now_s: float) -> None:
        """A chunk has come."""
        self._came.append((seq, now_s))

    def latency_ms(self, seq: int, now_s: float) -> int | None:
        """How long ago a chunk came; None if that is not known any more, or never was."""
        for came, at_s in reversed(self._came):
            if came == seq:
                return max(0, round((now_s - at_s) * 1000))
        return None


def _offset(run: _Run) -> float:
    return run.meeting_end_ms - run.end_ms
