"""What time does to one connection: unsent bytes grow old, a silent peer is asked and given up.

Sans-IO: told the time and byte counts, it says what to do.
"""

from __future__ import annotations

import math
from enum import Enum

from edge.transport.settings import LaneSettings


class Verdict(Enum):
    """What the connection has to do now."""

    NOTHING = 0
    PING = 1
    DROP_SLOW = 2
    DROP_SILENT = 3


class Watch:
    """The deadlines of one connection; ``look`` is called a few times in the shortest of them."""

    __slots__ = ("_deadline_s", "_due_s", "_heard_bytes", "_mark_bytes", "_mark_s", "_pinged")

    def __init__(self, now_s: float, settings: LaneSettings) -> None:
        self._deadline_s = math.inf
        # All bytes up to the mark were written by _mark_s.
        self._mark_s = now_s
        self._mark_bytes = 0
        # The next ping is due then, or, when one is out, its answer.
        self._due_s = now_s + (settings.client_ping_interval_s or math.inf)
        self._pinged = False
        self._heard_bytes = 0

    def cut_at(self, deadline_s: float) -> None:
        """Cut the connection then, or earlier if that was said before."""
        self._deadline_s = min(self._deadline_s, deadline_s)

    def is_cut(self, now_s: float) -> bool:
        """Whether the time that ``cut_at`` gave has come."""
        return now_s >= self._deadline_s

    def look(
        self,
        now_s: float,
        settings: LaneSettings,
        *,
        heard_bytes: int,
        written_bytes: int,
        unsent_bytes: int,
        listening: bool,
    ) -> Verdict:
        """Judge an open connection.

        ``heard_bytes`` and ``written_bytes`` are totals, ``unsent_bytes`` of the latter have not
        left yet. Any byte heard answers a ping; while nobody is ``listening`` none can be.
        """
        if unsent_bytes == 0 or written_bytes - unsent_bytes >= self._mark_bytes:
            self._mark_s = now_s
            self._mark_bytes = written_bytes
        elif now_s - self._mark_s >= settings.client_send_timeout_s:
            return Verdict.DROP_SLOW

        if self._pinged and (heard_bytes != self._heard_bytes or not listening):
            self._pinged = False
            self._due_s = now_s + settings.client_ping_interval_s
        elif now_s >= self._due_s:
            if self._pinged:
                return Verdict.DROP_SILENT
            self._pinged = True
            self._heard_bytes = heard_bytes
            self._due_s = now_s + settings.client_pong_deadline_s
            return Verdict.PING
        return Verdict.NOTHING
