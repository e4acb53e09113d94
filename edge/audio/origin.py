"""Where a connection's media timestamps lie on its session's clock."""

from __future__ import annotations

import msgspec

from edge.audio.steps import CLOCK_HZ

_SAMPLES_PER_MS = CLOCK_HZ // 1000
_MOST_BEHIND = CLOCK_HZ // 10
"""How far a sender that kept its time base may be behind what was heard before the loss."""
_MOST_AHEAD = CLOCK_HZ * 60
"""How far it may be ahead of what the time since then explains."""


class SessionTime(msgspec.Struct, frozen=True):
    """A session's clock at the moment a connection took over from another."""

    heard_ms: float
    """Where the audio heard so far ends."""
    now_ms: float
    """What the clock says now: silence since then counts."""
    now_s: float
    """When that is, on a monotonic clock."""


class MediaOrigin:
    """One connection's time base, shared by its tracks.

    Of a session's first connection the timestamps are the session's clock. A sender that comes back
    may keep its time base or, like the bridge, count from zero at each connection: its first
    timestamp tells.
    """

    __slots__ = ("_kept", "_offset", "_time")

    def __init__(self, before: MediaOrigin | None = None, time: SessionTime | None = None) -> None:
        """``before`` is the base of the connection before; without ``time`` nothing was heard."""
        self._kept: int = 0 if before is None else before.known
        self._time = time
        self._offset = self._kept if time is None else None

    def offset(self, timestamp: int, now_s: float) -> int:
        """Session time minus media time, in 48 kHz samples; the first timestamp decides."""
        if self._offset is None:
            self._offset = self._decide(timestamp, now_s)
        return self._offset

    @property
    def known(self) -> int:
        """``offset`` as far as it is decided; else that of the connection before."""
        return self._kept if self._offset is None else self._offset

    def _decide(self, timestamp: int, now_s: float) -> int:
        time = self._time
        assert time is not None
        heard = round(time.heard_ms) * _SAMPLES_PER_MS
        passed_ms = round(time.now_ms + 1000 * (now_s - time.now_s))
        expected = max(heard, passed_ms * _SAMPLES_PER_MS)
        if heard - _MOST_BEHIND <= timestamp + self._kept <= expected + _MOST_AHEAD:
            return self._kept
        return expected - timestamp
