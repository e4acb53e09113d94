"""How work that can wait leaves an event loop to work that cannot."""

from __future__ import annotations

import asyncio
import time

REST_S = 0.005
"""The longest rest: however busy the loop is, so many steps a second are done."""
LEAST_REST_S = 0.001
"""Shorter ones are added up: timers are no finer."""
FRESH_S = 0.02
"""Who was not here for so long has rested."""


class Pace:
    """Steps one after the other; between two of them rests that keep them to a share of the loop.

    What the loop's thread did between two steps counts as theirs, whoever did it: others who are
    busy make for longer rests. ``share`` 1 never rests.
    """

    def __init__(self, share: float = 1.0) -> None:
        self._rests = 1 / share - 1
        self._turns = asyncio.Lock()
        self._owed_s = 0.0
        self._at_s = 0.0
        self._cpu_s = 0.0

    async def turn(self) -> None:
        """Return when the next step may be done."""
        if not self._rests:
            return
        async with self._turns:
            now_s, cpu_s = time.monotonic(), time.thread_time()
            if now_s - self._at_s > FRESH_S:
                self._owed_s = 0.0
            else:
                busy_s = cpu_s - self._cpu_s
                self._owed_s = min(self._owed_s + busy_s * self._rests, REST_S)
            # What the step before still does while this one waits counts, too.
            self._cpu_s = cpu_s
            if self._owed_s >= LEAST_REST_S:
                await asyncio.sleep(self._owed_s)
                self._owed_s = 0.0
            self._at_s = time.monotonic()
