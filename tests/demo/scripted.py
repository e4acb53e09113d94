"""A WebSocket server that plays a gateway's part from a script, for the clients of this room."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from websockets.asyncio.server import ServerConnection, serve

Script = Callable[[ServerConnection], Awaitable[None]]


def result(text: str, *, interim: bool = False, tag: str = "abcdef01-1", **extra: object) -> str:
    """A transcription result as a gateway words it."""
    message = {
        "transcript": [{"confidence": 0.9, "text": text}],
        "is_interim": interim,
        "message_id": "item-1",
        "type": "transcription-result",
        "event": "transcription-result",
        "participant": {"id": tag.partition("-")[0], "tag": tag},
        "timestamp": 1768341932350,
        **extra,
    }
    return json.dumps(message)


@asynccontextmanager
async def gateway(script: Script) -> AsyncIterator[str]:
    """Serve ``script`` to every connection; gives the address ``host:port``."""
    async with serve(script, "127.0.0.1", 0, ping_interval=None) as server:
        yield f"127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
