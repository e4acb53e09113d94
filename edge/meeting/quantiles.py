"""Quantiles of the few latencies that a role remembers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edge.meeting.records import MAX_SAMPLES


def quantile(samples: Sequence[float], q: float) -> float | None:
    """The sample below which a share ``q`` (0 to 1) of the most recent ones lies; None for none.

    One of the samples: there is no interpolation.
    """
    recent = sorted(samples[-MAX_SAMPLES:])
    return recent[math.floor((len(recent) - 1) * q)] if recent else None
