"""Services that behave as badly as a service can without holding up the event loop."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from sanic import HTTPResponse, Request, Sanic
from sanic.response import empty

FLOOD_BYTES = 10 * 1024**3
PIECE = bytes(64 * 1024)

_leaked: set[asyncio.Task[None]] = set()


async def sanic_answer(request: Request, what: str) -> HTTPResponse | None:
    """Misbehave as the path says."""
    if what == "crash":
        raise RuntimeError("boom")
    if what == "exit":
        sys.exit(3)
    if what == "hang":
        await asyncio.Event().wait()
    if what == "leak":
        _leaked.add(asyncio.ensure_future(asyncio.sleep(3600)))
    if what == "flood":
        response = await request.respond(headers={"content-length": str(FLOOD_BYTES)})
        for _ in range(FLOOD_BYTES // len(PIECE)):
            await response.send(PIECE)
        await response.eof()
        return None
    return empty()


wild_sanic: Sanic[Any, Any] = Sanic("wild", configure_logging=False)
wild_sanic.add_route(sanic_answer, "/<what:str>")


async def wild_asgi(scope: Any, receive: Any, send: Any) -> None:
    """The same as an ASGI application."""
    assert scope["type"] == "http"
    what = scope["path"][1:]
    if what == "crash":
        raise RuntimeError("boom")
    if what == "exit":
        sys.exit(3)
    if what == "hang":
        await asyncio.Event().wait()
    size = FLOOD_BYTES if what == "flood" else 0
    length = (b"content-length", str(size).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    for _ in range(size // len(PIECE)):
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    await send({"type": "http.response.body"})
    if what == "leak":
        await asyncio.Event().wait()


async def steady(scope: Any, receive: Any, send: Any) -> None:
    """A neighbour that only answers."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"well"})
