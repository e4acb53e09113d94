"""Where turns of one track were ended by command, each until its text has come.

Comes in: audio times. Goes out: the next one after a time. A supervisor owns it and its links read
it: a connection that is opened later, or opened again, ends turns at the same places.
"""

from __future__ import annotations

from collections import deque

MOST = 64
"""So many wait at most. The oldest is forgotten first, and its turn ends with the next one."""


class TurnEnds:
    """Audio milliseconds in ascending order."""

    def __init__(self) -> None:
        self._ends_ms: deque[float] = deque(maxlen=MOST)

    def add(self, end_ms: float) -> None:
        """A turn ends here."""
        if not self._ends_ms or end_ms > self._ends_ms[-1]:
            self._ends_ms.append(end_ms)

    def after(self, from_ms: float) -> float | None:
        """The next one after ``from_ms``."""
        return next((end_ms for end_ms in self._ends_ms if end_ms > from_ms), None)

    def told(self, mark_ms: float, given_ms: float) -> None:
        """A final came; all before ``mark_ms`` has its text, and one end up to ``given_ms``."""
        ends_ms = self._ends_ms
        answered = bool(ends_ms) and ends_ms[0] <= given_ms
        while ends_ms and (answered or ends_ms[0] <= mark_ms):
            ends_ms.popleft()
            answered = False
