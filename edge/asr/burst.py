"""Connections of a worker that have audio to send write it one after the other.

Comes in: who has something to write. Goes out: a call to write it, in the event loop's next turn.
Written each when it is ready, between one track's decoding and the next one's, every write would
find its code, the kernel's too, gone from the nearest caches, and wake whoever reads it anew.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar, Protocol
from weakref import WeakKeyDictionary


class Writer(Protocol):
    """A connection that holds something back."""

    def write_held(self) -> None:
        """Write it now."""
        ...


class Burst:
    """Who writes in the next turn of one event loop; ``here`` gives the running one's."""

    _of_loop: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, Burst]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._writers: list[Writer] = []

    @classmethod
    def here(cls) -> Burst:
        """That of the running event loop."""
        loop = asyncio.get_running_loop()
        burst = cls._of_loop.get(loop)
        if burst is None:
            burst = cls._of_loop[loop] = cls()
        return burst

    def add(self, writer: Writer) -> None:
        """Call ``write_held`` in the next turn."""
        if not self._writers:
            asyncio.get_running_loop().call_soon(self._write)
        self._writers.append(writer)

    def _write(self) -> None:
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.write_held()
