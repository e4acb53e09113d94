"""What a supervisor does just now, for those who look for the reason of something."""

from __future__ import annotations

from typing import Literal

import msgspec

Activity = Literal["connecting", "live", "catching_up", "idle", "finishing"]
"""``connecting``: or waiting for the next try. ``catching_up``: kept audio is played, or the
service does not take it. ``idle``: nothing is said, the recognizer is closed."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One track's."""

    activity: Activity
    provider: str
    """The recognizer that is used, or was tried last; empty before the first."""
    backlog_ms: float
    """Audio that no recognizer was handed."""
    unsent_ms: float
    """Audio that was handed over and has not left for the service."""
    unsettled_ms: float
    """Audio since the last final."""
