"""A service is replaced again and again under load, and every request has to be answered.

By a service of the process, by an upstream, and back; 16 clients ask all the time.
``python -m bench.router_replace [REPLACEMENTS]`` prints how many requests failed, and fails if any
did.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from typing import Any

from sanic import HTTPResponse, Request, Sanic
from sanic.response import text

from router import Limits, Namespace
from tests.router.support.serving import connected, listening, named, serving

REPLACEMENTS = 200
CLIENTS = 16
UPSTREAMS = 2
WORK_S = 0.002
"""What each request takes, so that some are under way at each replacement."""
HERE = "here"


def version(name: str) -> Sanic[Any, Any]:
    """A service that answers with its name."""
    app: Sanic[Any, Any] = Sanic(named("version"), configure_logging=False)

    async def answer(request: Request) -> HTTPResponse:
        await asyncio.sleep(WORK_S)
        return text(name)

    app.add_route(answer, "/")
    return app


class Load:
    """What the clients got."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.answered = self.failed = 0
        self.latest = ""

    async def ask(self) -> None:
        """Ask until cancelled; a failure costs the connection and is counted."""
        while True:
            try:
                async with connected(self._port) as client:
                    while True:
                        reply = await client.ask("db.do")
                        self.answered += 1
                        self.failed += reply.status != 200
                        self.latest = reply.body.decode()
            except (OSError, EOFError):
                self.failed += 1

    async def until_from(self, name: str) -> None:
        """Return once a version answers."""
        async with asyncio.timeout(10):
            while self.latest != name:
                await asyncio.sleep(0.001)


async def main(replacements: int) -> int:
    """Returns the exit code."""
    namespace = Namespace("production")
    async with contextlib.AsyncExitStack() as stack:
        urls = [
            f"http://127.0.0.1:{await stack.enter_async_context(listening(version(str(number))))}"
            for number in range(UPSTREAMS)
        ]
        namespace.register("db", urls[0], limits=Limits(max_concurrency=4 * CLIENTS))
        load = Load(await stack.enter_async_context(serving(namespace)))
        clients = [asyncio.ensure_future(load.ask()) for _ in range(CLIENTS)]
        began_s = time.monotonic()
        for number in range(1, replacements + 1):
            place = number % (UPSTREAMS + 1)
            is_here = place == UPSTREAMS
            await namespace.replace("db", version(HERE) if is_here else urls[place])
            await load.until_from(HERE if is_here else str(place))
        took_s = time.monotonic() - began_s
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    print(
        f"{replacements} replacements in {took_s:.1f} s: "
        f"{load.answered} requests, {load.failed} failures"
    )
    return 1 if load.failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else REPLACEMENTS)))
