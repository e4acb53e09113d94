"""How fast one connection is read: so many events a second, and no further than can be kept.

A token bucket answers how long to wait; a queue of tracks, whether to wait on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

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


FIRST_LOOK_S = 0.005
LONGEST_LOOK_S = 0.03
"""A connection that waits for its tracks is looked at so often, less and less."""
GO_ON_AT = 0.5
"""A connection that has waited goes on when so much less than may waits to be played."""


class Crowdable(Protocol):
    """A track whose sender may be read more slowly."""

    def must_wait(self, now_s: float, crowding: float = 1.0) -> bool:
        """Whether more waits to be played than ``crowding`` says, of a sender ahead of time."""
        ...


class Waiting:
    """Tracks for which one connection is left unread until their audio has been played."""

    __slots__ = ("_look_s", "_tracks")

    def __init__(self) -> None:
        self._tracks: list[Crowdable] = []
        self._look_s = 0.0

    def begin(self, tracks: Iterable[Crowdable], now_s: float) -> float:
        """Seconds to wait, 0 if none of these needs it."""
        self._tracks = [track for track in tracks if track.must_wait(now_s)]
        self._look_s = FIRST_LOOK_S if self._tracks else 0.0
        return self._look_s

    def __bool__(self) -> bool:
        """Whether the connection has been left unread for tracks."""
        return bool(self._tracks)

    def go_on(self, now_s: float) -> float:
        """Seconds to wait still."""
        self._tracks = [track for track in self._tracks if track.must_wait(now_s, GO_ON_AT)]
        wait_s, self._look_s = self._look_s, min(2 * self._look_s, LONGEST_LOOK_S)
        return wait_s if self._tracks else 0.0
