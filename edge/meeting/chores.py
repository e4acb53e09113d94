"""What a worker does for all meetings now and then: it finishes what others could not."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

from edge.errors import StoreError
from edge.logs import Repeats, get_logger

EVERY_S = 15.0

_log = get_logger("edge.meeting.chores")


class Chores:
    """Calls ``sweeps`` one after the other, again and again, between ``start`` and ``stop``."""

    def __init__(self, *sweeps: Callable[[], Awaitable[None]], every_s: float = EVERY_S) -> None:
        self._sweeps = sweeps
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None
        self._faults = Repeats(_log)

    def start(self) -> None:
        """Begin, from a random moment on."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End; what is being done is done by another worker."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s * random.uniform(0.5, 1.0))
            for sweep in self._sweeps:
                try:
                    await sweep()
                except StoreError as error:
                    self._faults.note("meetings cannot be looked after", reason=str(error))
                except Exception as error:
                    _log.error("a chore failed", exc_info=error)
            self._faults.summarize()
