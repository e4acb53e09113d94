"""The steps of a track that may still have to be played, or played again."""

from __future__ import annotations

from collections import deque

from edge.audio.stats import TrackStats
from edge.audio.steps import CLOCK_HZ, Step, StepKind

_PACKET = StepKind.PACKET
_PCM = StepKind.PCM
_SAMPLES_PER_MS = CLOCK_HZ // 1000


class ReplayRing:
    """Steps since the last final, at most so many milliseconds of them; the oldest make room.

    Steps are numbered from the track's first on. The ring also knows how far any feed has ever
    played, so that each packet is counted once: when first played, or when it leaves unplayed.
    """

    __slots__ = ("_limit", "_overflow", "_played", "_stats", "_steps", "count", "end", "start")

    def __init__(self, limit_ms: int, stats: TrackStats) -> None:
        self._limit = limit_ms * _SAMPLES_PER_MS
        self._stats = stats
        self._steps: deque[Step] = deque()
        self._played = 0
        """Number after the last step that was played."""
        self._overflow = 0
        self.count = 0
        """Steps ever appended: the number of the next one."""
        self.start = 0
        """Position of the oldest step, in samples since the track's first."""
        self.end = 0
        """Position of the end of the newest step."""

    @property
    def first(self) -> int:
        """Number of the oldest step."""
        return self.count - len(self._steps)

    @property
    def unplayed_packets(self) -> int:
        """Packets here that no feed has played yet."""
        return sum(
            1
            for number in range(max(self._played, self.first), self.count)
            if self.step(number).kind in (_PACKET, _PCM)
        )

    def step(self, number: int) -> Step:
        """The step of this number, from ``first`` to ``count`` - 1."""
        return self._steps[number - self.count]

    def append(self, step: Step) -> None:
        """Keep a step; drop the oldest ones if that makes too many."""
        self._steps.append(step)
        self.count += 1
        self.end += step.samples
        while self.end - self.start > self._limit:
            unplayed = self._played <= self.first
            dropped = self._drop()
            if unplayed:
                self._overflow += dropped.samples
                self._stats.overflow_dropped_ms = self._overflow // _SAMPLES_PER_MS

    def forget(self, until: int) -> None:
        """Drop the steps that end at or before this position."""
        while self._steps and self.start + self._steps[0].samples <= until:
            self._drop()

    def find(self, position: int) -> tuple[int, int]:
        """Number and position of the step that holds ``position``, or of the nearest one kept."""
        number, start = self.count, self.end
        for step in reversed(self._steps):
            if start <= position:
                break
            number -= 1
            start -= step.samples
        return number, start

    def mark_played(self, number: int, step: Step, sound: bool) -> None:
        """Count a step the first time a feed plays it; ``sound`` says its payload was decoded."""
        if number < self._played:
            return
        if number > self._played:
            for passed_over in range(max(self._played, self.first), number):
                self._count_unplayed(self.step(passed_over))
        self._played = number + 1
        kind = step.kind
        if kind is _PACKET or kind is _PCM:
            if sound:
                self._stats.decoded += 1
            else:
                self._stats.corrupt += 1

    def _drop(self) -> Step:
        number = self.first
        step = self._steps.popleft()
        self.start += step.samples
        if number >= self._played:
            self._count_unplayed(step)
        return step

    def _count_unplayed(self, step: Step) -> None:
        if step.kind is _PACKET or step.kind is _PCM:
            self._stats.unplayed += 1
