"""When what is done at a steady pace is due: together with all else that has the same pace.

Comes in: the event loop's clock. Goes out: a time on it. Any room may ask; it knows nothing.
"""

from __future__ import annotations

import math

BEAT_S = 0.04
"""The pace of what has none of its own: clients are read at it, unless it is set otherwise."""
_EARLY = 0.25
"""Share of an interval by which a timer may come early and still be that of the beat."""


def next_beat(now_s: float, interval_s: float) -> float:
    """The next multiple of ``interval_s`` since the clock's zero.

    Timers of one pace, or of multiples of it, then wake a worker together: once, not one by one.
    """
    return (math.floor(now_s / interval_s + _EARLY) + 1) * interval_s


def beat_after(now_s: float, delay_s: float) -> float:
    """The first beat that is no earlier than in ``delay_s``: for what need not be exact.

    A worker that wakes up for one thing does a hundred others for a fraction of that cost.
    """
    return math.ceil((now_s + delay_s) / BEAT_S) * BEAT_S
