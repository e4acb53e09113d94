"""What clients of all sockets have in common: everything received is kept, and waited for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

Message = dict[str, Any]


class Connection:
    """One connection, which is read from the beginning."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.messages: list[Message] = []
        self.close: tuple[int, str] | None = None
        """The close code and reason; 1006 without a close frame."""
        self._changed = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    async def until(self, condition: Callable[[], object], seconds: float = 15.0) -> None:
        """Wait until the condition holds; it is looked at after each message."""
        async with asyncio.timeout(seconds):
            while not condition():
                assert self.close is None, self.close
                self._changed.clear()
                await self._changed.wait()

    async def closed(self, seconds: float = 15.0) -> tuple[int, str]:
        """The close code and reason, once the connection is closed."""
        await self.until(lambda: self.close is not None, seconds)
        assert self.close is not None
        return self.close

    async def leave(self, code: int = 1000) -> None:
        await self.socket.close(code)
        await self._reader

    async def lose(self) -> None:
        """Break the connection without a close frame."""
        self.socket.transport.abort()
        await self._reader

    async def stop_reading(self) -> None:
        """Let what comes wait in the system's buffers."""
        self._reader.cancel()
        await asyncio.wait((self._reader,))

    def read_on(self) -> None:
        self._reader = asyncio.create_task(self._read())

    def take(self, data: str | bytes) -> None:
        """Something has come."""
        self.messages.append(json.loads(data))

    async def _read(self) -> None:
        try:
            while True:
                self.take(await self.socket.recv())
                self._changed.set()
        except ConnectionClosed as closed:
            frame = closed.rcvd
            self.close = (frame.code, frame.reason) if frame else (1006, "")
            self._changed.set()
