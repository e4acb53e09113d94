"""Whether a sender is ahead of real time, with a recording say, and can wait.

Comes in: how much audio has come, and the time. Goes out: yes or no. Pure arithmetic. A sender in
real time may look ahead, too: its first packets waited in the kernel, or it caught up after a
stall. Its lead does not grow, however, so that it is forgotten after a while.
"""

from __future__ import annotations

AHEAD_MS = 1000.0
"""A burst after a stall of the network is no more than this as a rule."""
CREDIT_S = 20.0
"""What a sender that was silent or away may catch up with before it counts as ahead."""
LOOK_S = 5.0
"""A lead is looked at again after so long, and forgotten unless it has grown."""
GROWTH_MS = 500.0
"""By how much at least: one second in ten is no faster than real time."""


class Lead:
    """One sender's."""

    __slots__ = ("_began_s", "_lead_ms", "_looked_s")

    def __init__(self, began_s: float) -> None:
        self._began_s = began_s
        self._looked_s: float | None = None
        """Since when it has been ahead, or was found to be still."""
        self._lead_ms = 0.0

    def is_ahead(self, now_s: float, end_ms: float, *, excused: bool) -> bool:
        """Whether it is, having sent ``end_ms``; who is ``excused`` was kept from sending more."""
        self._began_s = max(self._began_s, now_s - end_ms / 1000 - CREDIT_S)
        lead_ms = end_ms - 1000 * (now_s - self._began_s)
        if lead_ms <= AHEAD_MS:
            self._looked_s = None
            return False
        if self._looked_s is None or excused:
            self._looked_s, self._lead_ms = now_s, lead_ms
        elif now_s - self._looked_s >= LOOK_S:
            if lead_ms - self._lead_ms < GROWTH_MS * (now_s - self._looked_s) / LOOK_S:
                self._began_s -= lead_ms / 1000
                self._looked_s = None
                return False
            self._looked_s, self._lead_ms = now_s, lead_ms
        return True
