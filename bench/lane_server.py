"""One process that takes WebSocket messages by the lane or by Sanic's own layer.

    python -m bench.lane_server lane|sanic

Prints its port. ``/ws`` answers one message in a hundred. ``/spent`` tells of this process the CPU
time so far in ns, the messages taken, the read calls made, the connections open and the resident
memory in kB.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from typing import Any

from sanic import HTTPResponse, Request, Sanic, Websocket
from sanic.response import text

from edge.transport.interface import Close, Socket
from edge.transport.lane import LaneProtocol, accept
from edge.transport.registry import Lanes

ANSWER = b"k"
ANSWER_EVERY = 100


class Tally:
    """What all connections took."""

    messages = 0
    connections = 0


class Counter:
    """A receiver that counts and answers."""

    __slots__ = ("_messages", "_socket")

    def __init__(self) -> None:
        self._messages = 0
        self._socket: Socket

    def opened(self, socket: Socket) -> None:
        self._socket = socket
        Tally.connections += 1

    def message(self, data: bytes, is_text: bool) -> None:
        Tally.messages += 1
        self._messages += 1
        if self._messages % ANSWER_EVERY == 0:
            self._socket.send_text(ANSWER)

    def closed(self, close: Close) -> None:
        Tally.connections -= 1


def serve_by_lane(app: Sanic[Any, Any]) -> None:
    @app.before_server_start
    async def make_registry(app: Sanic[Any, Any], loop: asyncio.AbstractEventLoop) -> None:
        app.ctx.lanes = Lanes()

    @app.get("/ws")
    async def take(request: Request) -> HTTPResponse:
        return accept(request, Counter(), lanes=request.app.ctx.lanes)


def serve_by_sanic(app: Sanic[Any, Any]) -> None:
    @app.websocket("/ws")
    async def take(request: Request, socket: Websocket) -> None:
        Tally.connections += 1
        messages = 0
        try:
            async for _ in socket:
                Tally.messages += 1
                messages += 1
                if messages % ANSWER_EVERY == 0:
                    await socket.send(ANSWER.decode())
        finally:
            Tally.connections -= 1


def system_says(path: str, name: str) -> int:
    """The number after ``name:`` in a file of /proc; 0 where there is none."""
    with contextlib.suppress(OSError), open(path) as lines:
        for line in lines:
            if line.startswith(name + ":"):
                return int(line.split()[1])
    return 0


def main() -> None:
    way = sys.argv[1]
    app: Sanic[Any, Any] = Sanic("bench", configure_logging=False)
    {"lane": serve_by_lane, "sanic": serve_by_sanic}[way](app)

    @app.get("/spent")
    async def spent(request: Request) -> HTTPResponse:
        cpu_ns = time.process_time_ns()
        reads = system_says("/proc/self/io", "syscr")
        resident_kb = system_says("/proc/self/status", "VmRSS")
        return text(f"{cpu_ns} {Tally.messages} {reads} {Tally.connections} {resident_kb}")

    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(listener.getsockname()[1], flush=True)
    app.run(
        sock=listener,
        protocol=LaneProtocol if way == "lane" else None,
        single_process=True,
        access_log=False,
        motd=False,
    )


if __name__ == "__main__":
    main()
