"""Whether a feed that catches up with its track comes any nearer: on a worker with too much to do
it never would, and fall behind for ever.

Comes in: how far the feed is behind, from time to time. Goes out: whether to give the distance up.
"""

from __future__ import annotations

WINDOW_S = 5.0
"""A feed that is no nearer after so long has lost the track."""
LATE_MS = 200.0
"""What a feed may always be behind."""


class Pursuit:
    """One feed's; what an earlier connection owed, up to ``replay_end_ms``, is never given up."""

    __slots__ = ("_behind_ms", "_replay_end_ms", "_since_s")

    def __init__(self, replay_end_ms: float) -> None:
        self._replay_end_ms = replay_end_ms
        self._since_s: float | None = None
        self._behind_ms = 0.0

    def rest(self) -> None:
        """It is not the worker that the feed waits for: begin anew."""
        self._since_s = None

    def is_lost(self, now_s: float, delivered_ms: float, end_ms: float) -> bool:
        """Look again: the feed has delivered so much of what the track has."""
        behind_ms = end_ms - delivered_ms
        if self._since_s is None:
            self._since_s, self._behind_ms = now_s, behind_ms
            return False
        if now_s - self._since_s < WINDOW_S:
            return False
        gained_ms = self._behind_ms - behind_ms
        self._since_s, self._behind_ms = now_s, behind_ms
        return gained_ms <= 0 and behind_ms > LATE_MS and delivered_ms >= self._replay_end_ms
