"""One timer for all tracks of a worker: each is told the time when its own has come.

Looked at every 20 ms, or 40 when nothing comes up before that. Nearly always a track has nothing
to do, which is seen natively.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from edge.audio.track import PacketOrder, next_wake, waking
from edge.beat import next_beat

INTERVAL_S = 0.020
REST_S = 2 * INTERVAL_S
"""The next look when nothing can come up before it."""
LATE_S = 0.1
"""A beat that comes so much too late comes before what has arrived meanwhile was read."""
LONGEST_HOLD_S = 1.0


class Metronome:
    """Calls members whose time has come with ``time.monotonic()``, while it has members.

    A member that raises is dropped and reported by its key; the others never notice.
    """

    def __init__(self, on_error: Callable[[object, BaseException], None]) -> None:
        self._orders: dict[object, PacketOrder] = {}
        self._ticks: dict[object, Callable[[float], None]] = {}
        self._on_error = on_error
        self._timer: asyncio.TimerHandle | None = None
        self._hold_until_s = 0.0
        """After a stall nobody is told the time: a sender whose packets wait is not silent."""

    def add(self, key: object, order: PacketOrder, tick: Callable[[float], None]) -> None:
        """Call ``tick`` at any time from ``order.wake_s`` on; ``key`` takes it out again."""
        self._orders[key] = order
        self._ticks[key] = tick
        if self._timer is None:
            self._arm()

    def remove(self, key: object) -> None:
        """Stop calling the member of this key; unknown keys are fine."""
        self._orders.pop(key, None)
        self._ticks.pop(key, None)

    @property
    def members(self) -> tuple[object, ...]:
        """The keys of its members."""
        return tuple(self._orders)

    def stop(self) -> None:
        """Let all members go and cancel the timer."""
        self._orders.clear()
        self._ticks.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        rests = next_wake(self._orders) > time.monotonic() + REST_S
        due_s = next_beat(loop.time(), REST_S if rests else INTERVAL_S)
        self._timer = loop.call_at(due_s, self._beat, due_s)

    def _beat(self, due_s: float) -> None:
        self._timer = None
        now_s = time.monotonic()
        late_s = asyncio.get_running_loop().time() - due_s
        if late_s > LATE_S:
            self._hold_until_s = now_s + min(late_s, LONGEST_HOLD_S)
        if now_s < self._hold_until_s:
            self._arm()
            return
        try:
            for key in waking(self._orders, now_s):
                tick = self._ticks.get(key)
                if tick is None:
                    continue
                try:
                    tick(now_s)
                except Exception as error:
                    self.remove(key)
                    self._on_error(key, error)
        finally:
            if self._orders and self._timer is None:
                self._arm()
