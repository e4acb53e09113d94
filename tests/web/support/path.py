"""A way to a server that can be cut."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class NetworkPath:
    """Relays TCP; while it is cut it takes nothing and has dropped what there was."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._writers: set[StreamWriter] = set()
        self.is_cut = False
        self.port = 0

    def cut(self) -> None:
        self.is_cut = True
        for writer in tuple(self._writers):
            writer.transport.abort()

    def mend(self) -> None:
        self.is_cut = False

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        if self.is_cut:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        ends = {writer, far_writer}
        self._writers |= ends
        await asyncio.gather(self._relay(reader, far_writer), self._relay(far_reader, writer))
        self._writers -= ends

    async def _relay(self, reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(ConnectionError):
            while block := await reader.read(65536):
                writer.write(block)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def network_path(host: str, port: int) -> AsyncIterator[NetworkPath]:
    path = NetworkPath(host, port)
    server = await asyncio.start_server(path.serve, "127.0.0.1", 0)
    path.port = server.sockets[0].getsockname()[1]
    async with server:
        yield path
        path.cut()
