"""A Sanic service: keeps notes, and tells the dispatcher of each through its binding."""

from __future__ import annotations

from types import SimpleNamespace

from sanic import HTTPResponse, Request, Sanic
from sanic.config import Config
from sanic.response import json

from router.front import RoutedRequest

MAX_NOTES = 100

app: Sanic[Config, SimpleNamespace] = Sanic("notes", configure_logging=False)
app.ctx.notes = []


@app.get("/")
async def notes(request: Request) -> HTTPResponse:
    """All notes, the oldest first."""
    return json(request.app.ctx.notes)


@app.post("/")
async def add(request: RoutedRequest) -> HTTPResponse:
    """Keep the body as a note; the answer is its number in the dispatcher's queue."""
    kept: list[str] = request.app.ctx.notes
    kept.append(request.body.decode(errors="replace"))
    del kept[:-MAX_NOTES]
    number = await request.namespace.get("dispatcher").push(kept[-1])
    return json({"queued": number}, status=201)
