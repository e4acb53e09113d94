"""Whether a stream's service still lives: it may stop to answer without closing the connection.

Comes in: a look at the stream now and then. Goes out: how long it has been dead. Only a link calls
it.
"""

from __future__ import annotations

import math

from edge.asr.interface import RecognizerStream

CALM_S = 2.0
"""How often to look at a stream that owes nothing."""
LATE_S = 0.5
"""A look that comes this late says that the worker stood still: answers may be there unread."""
LOOKS = 3
"""In the time a service may be silent."""


class Vigil:
    """Watches one stream; see ``RecognizerStream`` for the rule. Times are ``time.monotonic()``."""

    __slots__ = ("_asked", "_due_s", "_limit_s", "_most_s", "_since_s", "next_s")

    def __init__(self, limit_s: float) -> None:
        """``limit_s`` is for services that are quiet by design; 0 never judges any service."""
        self._limit_s = limit_s
        self._most_s = math.inf
        self._since_s: float | None = None
        """From when on silence counts: it owes something since then, or was asked then."""
        self._asked = False
        self._due_s: float | None = None
        self.next_s = CALM_S
        """Seconds until the next look."""

    def hurry(self, deadline_s: float) -> None:
        """The track ends: leave time to say it all again within so many seconds."""
        self._most_s = deadline_s / 5

    def look(self, now_s: float, stream: RecognizerStream) -> float | None:
        """Seconds the service has been silent for if that is too long, else None."""
        limit_s = stream.silent_limit_s
        asks = limit_s is None
        limit_s = self._limit_s if limit_s is None or not self._limit_s else limit_s
        limit_s = min(limit_s, self._most_s)
        was_late = self._due_s is not None and now_s - self._due_s > LATE_S
        if not limit_s or not stream.turn_open:
            self._since_s, self._due_s, self.next_s = None, None, CALM_S
            return None
        self.next_s = max(limit_s / LOOKS, 0.01)
        self._due_s = now_s + self.next_s
        if self._since_s is None or was_late:
            self._since_s, self._asked = now_s, False
        elif stream.heard_s > self._since_s:
            self._since_s, self._asked = stream.heard_s, False
        silent_s = now_s - self._since_s
        if silent_s < limit_s:
            return None
        if not asks or self._asked:
            return silent_s
        self._asked = stream.probe()
        self._since_s = now_s
        return None
