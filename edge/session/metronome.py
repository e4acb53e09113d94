"""One timer for all tracks of a worker: each is told the time every 20 ms."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

INTERVAL_S = 0.020


class Metronome:
    """Calls every member with ``time.monotonic()`` at a steady pace while it has members.

    A member that raises is dropped and reported by its key; the others never notice.
    """

    def __init__(self, on_error: Callable[[object, BaseException], None]) -> None:
        self._members: dict[object, Callable[[float], None]] = {}
        self._on_error = on_error
        self._timer: asyncio.TimerHandle | None = None

    def add(self, key: object, tick: Callable[[float], None]) -> None:
        """Call ``tick`` from now on; ``key`` takes it out again."""
        self._members[key] = tick
        if self._timer is None:
            self._arm()

    def remove(self, key: object) -> None:
        """Stop calling the member of this key; unknown keys are fine."""
        self._members.pop(key, None)

    def stop(self) -> None:
        """Let all members go and cancel the timer."""
        self._members.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self._beat)

    def _beat(self) -> None:
        self._timer = None
        now_s = time.monotonic()
        members = self._members
        try:
            for key, tick in zip(tuple(members), tuple(members.values()), strict=True):
                try:
                    tick(now_s)
                except Exception as error:
                    members.pop(key, None)
                    self._on_error(key, error)
        finally:
            if members and self._timer is None:
                self._arm()
