"""Messages that ``edgescribe dispatcher`` takes from a queue into a file, as people run it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dispatch import Transport
from dispatch.local_queue import LocalQueue
from dispatch.messages import decode_message
from dispatch.transports.local import LocalTransport
from dispatch.transports.redis import RedisTransport
from edge.demo.gateway import cpu_s
from edge.dispatching.ways import QUEUE_FILE
from tests.dispatch.support.queues import fill, texts
from tests.session.store.support.valkey import Valkey
from tests.support.server import REPOSITORY, clean_environment

SESSIONS = [f"session-{number}" for number in range(50)]
EACH = 1000
EACH_SOON = 4
BATCHES = (10, 100)
WANTED = {"local": 2000, "redis": 5000}


@contextmanager
def queue(kind: str, folder: Path) -> Iterator[tuple[Transport, list[str]]]:
    """A way into a queue, and what the command is told of it."""
    if kind == "local":
        told = ["--source", "local", "--data-dir", str(folder)]
        yield LocalTransport(LocalQueue(folder / QUEUE_FILE)), told
        return
    server = Valkey(folder)
    server.start()
    try:
        url = server.url
        yield RedisTransport(url), ["--source", "redis", "--dispatch-redis-url", url]
    finally:
        server.kill()


@pytest.mark.parametrize("kind", ["local", "redis"])
def test_a_consumer_process(
    kind: str, tmp_path: Path, in_full: bool, figure: Callable[[str], None]
) -> None:
    """With its start, which is most of it when only a few are taken."""
    each = EACH if in_full else EACH_SOON
    count = each * len(SESSIONS)
    for batch in BATCHES if in_full else BATCHES[:1]:
        folder = tmp_path / str(batch)
        folder.mkdir()
        with queue(kind, folder) as (transport, told):
            used_s, took_s = asyncio.run(consume(transport, told, folder, each, batch))
        figure(
            f"{kind}, batches of {batch}: {count / used_s:,.0f}/s of a core"
            f" ({count / took_s:,.0f}/s by the clock), the process's start with it"
        )
        if in_full:
            assert count / used_s > WANTED[kind]


async def consume(
    transport: Transport, told: list[str], folder: Path, each: int, batch: int
) -> tuple[float, float]:
    """CPU seconds of the process until all is in the file, in order, and those of the clock."""
    async with transport:
        for first in range(0, each, 100):
            await fill(transport, SESSIONS, min(100, each - first), first)
    file = folder / "finals.jsonl"
    command = [sys.executable, "-m", "edge.cli", "dispatcher", *told, "--sink", "jsonl"]
    command += ["--path", str(file), "--batch", str(batch)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=clean_environment(), stderr=log, stdout=log
        )
    begun_s = time.perf_counter()
    try:
        async with asyncio.timeout(300):
            while not file.exists() or file.read_bytes().count(b"\n") < each * len(SESSIONS):
                await asyncio.sleep(0.02)
        took_s, used_s = time.perf_counter() - begun_s, cpu_s(process.pid)
        process.terminate()
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()
    heard = texts(decode_message(line) for line in file.read_bytes().splitlines())
    assert heard == {session: [str(number) for number in range(each)] for session in SESSIONS}
    return used_s, took_s
