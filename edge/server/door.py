"""Who accepts the next connection: a worker with more than its share lets the others.

All workers accept from one listening socket, and the kernel asks whoever wakes first: of a burst,
one worker may get nearly all. A worker that carries more than the least loaded one stops listening
until the others have caught up. The socket itself stays open in every process: nobody is refused.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any

import uvloop

MARGIN = 8
"""How much more than the least loaded worker one may carry before it steps back."""
LOOK_AGAIN_S = 0.05


def steps_back(mine: int, others: Sequence[int], *, listening: bool) -> bool:
    """Whether a worker with this load should leave new connections to others.

    The least loaded worker never does, so somebody always listens. One that has stepped back comes
    back at half the margin.
    """
    margin = MARGIN if listening else MARGIN // 2
    return bool(others) and mine > min(others) + margin


class Door:
    """A worker's ear at the listening socket, which can be closed and opened again."""

    def __init__(
        self,
        loop: WorkerLoop,
        server: asyncio.AbstractServer,
        listener: socket.socket,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        options: dict[str, Any],
    ) -> None:
        self._loop = loop
        self._server: asyncio.AbstractServer | None = server
        self._listener = listener
        self._protocol_factory = protocol_factory
        self._options = options
        self._opening: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether this worker accepts connections, or is about to."""
        return self._server is not None or self._opening is not None

    def close(self) -> None:
        """Accept nothing more; connections that exist go on."""
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        if self._server is not None:
            self._server.close()
            self._server = None

    def open(self) -> None:
        """Accept again, from the event loop's next turn on."""
        if not self.is_open:
            self._opening = self._loop.create_task(self._open())

    async def shut(self) -> None:
        """Close for good and let go of the socket."""
        opening = self._opening
        self.close()
        if opening is not None:
            await asyncio.gather(opening, return_exceptions=True)
        self._listener.close()

    async def _open(self) -> None:
        self._server = await uvloop.Loop.create_server(
            self._loop, self._protocol_factory, sock=self._listener.dup(), **self._options
        )
        self._opening = None


class WorkerLoop(uvloop.Loop):
    """uvloop that gives the server it was asked for a door."""

    door: Door | None = None

    async def create_server(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        *args: Any,
        sock: socket.socket | None = None,
        **options: Any,
    ) -> asyncio.AbstractServer:
        """Like uvloop's; a server on a given listening socket can be reached as ``door``."""
        if sock is None:
            return await super().create_server(protocol_factory, *args, **options)
        spare = sock.dup()
        server = await super().create_server(protocol_factory, sock=sock, **options)
        self.door = Door(self, server, spare, protocol_factory, options)
        return server


class WorkerLoopPolicy(uvloop.EventLoopPolicy):  # type: ignore[misc]
    """Makes every new event loop a ``WorkerLoop``; Sanic keeps a uvloop policy it finds."""

    def _loop_factory(self) -> WorkerLoop:
        return WorkerLoop()
