"""A naive TCP balancer in a process of its own: round robin, no health checks, nothing sticky.

``python -m tests.nodes.support.balancer HOST PORT HOST:PORT…`` relays until it is killed. A node
that does not answer is passed over for the next one, as any balancer would.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from asyncio import StreamReader, StreamWriter

CONNECT_WITHIN_S = 0.5
BLOCK = 65536


async def relay(reader: StreamReader, writer: StreamWriter) -> None:
    try:
        while block := await reader.read(BLOCK):
            writer.write(block)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


class Balancer:
    def __init__(self, nodes: list[tuple[str, int]]) -> None:
        self._nodes = nodes
        self._turn = itertools.count()

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        node = await self._connect()
        if node is None:
            writer.close()
            return
        node_reader, node_writer = node
        await asyncio.gather(relay(reader, node_writer), relay(node_reader, writer))

    async def _connect(self) -> tuple[StreamReader, StreamWriter] | None:
        first = next(self._turn)
        for index in range(len(self._nodes)):
            host, port = self._nodes[(first + index) % len(self._nodes)]
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(CONNECT_WITHIN_S):
                    return await asyncio.open_connection(host, port)
        return None


async def main(host: str, port: str, *nodes: str) -> None:
    addresses = [
        (name, int(number)) for name, _, number in (node.rpartition(":") for node in nodes)
    ]
    balancer = Balancer(addresses)
    server = await asyncio.start_server(balancer.serve, host, int(port), backlog=1024)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
