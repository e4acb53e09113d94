"""How fast one connection may speak: a token bucket that answers how long to wait."""

from __future__ import annotations

PAUSE_S = 0.05
"""A connection over its pace is left unread this long at least, so that pauses stay cheap."""


class Pace:
    """Allows ``per_s`` events a second and a burst of one second's worth; pure arithmetic."""

    __slots__ = ("_left", "_per_s", "_since_s")

    def __init__(self, per_s: int, now_s: float) -> None:
        self._per_s = per_s
        self._left = float(per_s)
        self._since_s = now_s

    def spend(self, now_s: float, events: float = 1.0) -> float:
        """Count so many events; return 0, or the seconds for which no more should be taken."""
        self._left -= events
        if self._left >= 0.0:
            return 0.0
        earned = (now_s - self._since_s) * self._per_s
        self._since_s = now_s
        self._left = min(self._left + earned, float(self._per_s))
        if self._left >= 0.0:
            return 0.0
        return max(PAUSE_S, -self._left / self._per_s)
