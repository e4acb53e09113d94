"""A dispatcher: other services push to it without HTTP, clients ask it what is waiting."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace

from sanic import HTTPResponse, Request, Sanic
from sanic.config import Config
from sanic.response import json

MAX_WAITING = 1000


class Queue:
    """What other services call; the oldest items make room for new ones."""

    def __init__(self) -> None:
        self.waiting: deque[str] = deque(maxlen=MAX_WAITING)
        self._pushed = 0

    async def push(self, item: str) -> int:
        """Take an item; its number."""
        self.waiting.append(item)
        self._pushed += 1
        return self._pushed


app: Sanic[Config, SimpleNamespace] = Sanic("dispatcher", configure_logging=False)
app.ctx.binding = Queue()


@app.get("/")
async def waiting(request: Request) -> HTTPResponse:
    """What is waiting, the oldest first."""
    return json(list(request.app.ctx.binding.waiting))
