"""How a feed catches up with its track: on a worker with too much to do it may never get there.

Comes in: how long the feed waited for its turn. Goes out: how much it plays, and whether what it
owes is too late to be played. Pure arithmetic, by the rule of the tracks that are in time: who
waited too long passes over the oldest.
"""

from __future__ import annotations

SLICE_MS = 100.0
"""What a feed comes nearer to its track by with each turn."""
LATE_S = 0.2
"""A feed that waited so long for its turn is on a worker that has not the time for it."""
LONGEST_SLICE_MS = 500.0
"""Played in one turn, so that no replay holds up other tracks."""


class Pursuit:
    """One feed's; what was kept for want of a recognizer, up to ``replay_end_ms``, is not shed."""

    __slots__ = ("_replay_end_ms",)

    def __init__(self, replay_end_ms: float) -> None:
        self._replay_end_ms = replay_end_ms

    def rest(self, end_ms: float) -> None:
        """It is not the worker that the feed waits for: all up to ``end_ms`` is to be played."""
        self._replay_end_ms = max(self._replay_end_ms, end_ms)

    def slice_ms(self, waited_s: float) -> float:
        """What to play in a turn that was waited for: what came meanwhile, and more."""
        return min(SLICE_MS + 1000 * waited_s, LONGEST_SLICE_MS)

    def is_lost(self, waited_s: float, delivered_ms: float) -> bool:
        """Whether a feed that has delivered so much passes over what has come since."""
        return waited_s > LATE_S and delivered_ms >= self._replay_end_ms
