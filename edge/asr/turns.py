"""Turns for work that can wait: replaying kept audio, of however many tracks at once.

Comes in: tasks that have a slice of such work to do. Goes out: permission, to a few of them in each
turn of the event loop, oldest first, so that all replays of a worker together hold its sockets up
no longer than one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import ClassVar
from weakref import WeakKeyDictionary

AT_ONCE = 2
"""Slices done in one turn of the event loop."""


class Turns:
    """The queue of one event loop; ``here`` gives it."""

    _of_loop: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, Turns]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    @classmethod
    def here(cls) -> Turns:
        """The queue of the running event loop."""
        loop = asyncio.get_running_loop()
        turns = cls._of_loop.get(loop)
        if turns is None:
            turns = cls._of_loop[loop] = cls()
        return turns

    async def mine(self) -> None:
        """Return when the caller may do a slice of work, which it does before it awaits again."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._grant)
        waiter = loop.create_future()
        self._waiting.append(waiter)
        await waiter

    def _grant(self) -> None:
        granted = 0
        while self._waiting and granted < AT_ONCE:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                granted += 1
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._grant)
