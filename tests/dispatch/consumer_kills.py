"""Consumers are killed while a queue is filled: every message arrives, in order per session.

``python -m tests.dispatch.consumer_kills [--kills 20] [--messages 10000]`` is the long form.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from dispatch import Transport
from dispatch.local_queue import LocalQueue
from dispatch.messages import decode_message
from dispatch.transports.local import LocalTransport
from dispatch.transports.redis import RedisTransport
from edge.dispatching.ways import QUEUE_FILE
from tests.dispatch.support.queues import fill, texts
from tests.session.store.support.valkey import Valkey
from tests.support.server import REPOSITORY, clean_environment

CONSUMERS = 3
SESSIONS = tuple(f"session-{number}" for number in range(20))
STOP_WITHIN_S = 15.0


class Outcome(msgspec.Struct, frozen=True):
    """What arrived; ``repeated`` messages came more than once."""

    arrived: int
    repeated: int
    lost: list[str]
    unordered: list[str]
    statuses: list[int]
    took_s: float


class Consumers:
    """Processes that append to one file."""

    def __init__(self, source: Sequence[str], folder: Path, count: int = CONSUMERS) -> None:
        self.file = folder / "out.jsonl"
        self._command = [sys.executable, "-m", "edge.cli", "dispatcher", *source, "--sink", "jsonl"]
        self._command += ["--path", str(self.file), "--batch-wait", "0"]
        self._command += ["--dispatch-deadline-s", "1", "--takeover", "1"]
        self._log = (folder / "consumers.log").open("ab")
        self._started = 0
        self._processes = [self._start() for _ in range(count)]

    def _start(self) -> subprocess.Popen[bytes]:
        self._started += 1
        return subprocess.Popen(
            self._command, cwd=REPOSITORY, env=clean_environment(), stderr=self._log
        )

    async def ready(self) -> None:
        """Wait until all that were started were at work."""
        async with asyncio.timeout(30):
            while Path(self._log.name).read_bytes().count(b"delivering") < self._started:
                await asyncio.sleep(0.05)

    def kill_one(self, index: int) -> None:
        """kill -9, and another takes its place."""
        self._processes[index].kill()
        self._processes[index].wait()
        self._processes[index] = self._start()

    def stop(self) -> list[int]:
        """SIGTERM to all; their exit statuses."""
        for process in self._processes:
            process.terminate()
        return [process.wait(STOP_WITHIN_S) for process in self._processes]

    def end(self) -> None:
        """Leave none behind."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._log.close()

    def heard(self) -> dict[str, list[str]]:
        """What is in the file, by session."""
        data = self.file.read_bytes() if self.file.exists() else b""
        return texts(decode_message(line) for line in data.split(b"\n")[:-1])


async def kill_consumers(
    source: Sequence[str], transport: Transport, folder: Path, *, messages: int, kills: int
) -> Outcome:
    """Fill the queue in as many pieces as there are kills, with a kill after each."""
    started_s = time.monotonic()
    each = messages // len(SESSIONS)
    consumers = Consumers(source, folder)
    try:
        async with transport:
            await fill_and_kill(consumers, transport, each, kills)
        statuses = await asyncio.to_thread(consumers.stop)
    finally:
        consumers.end()
    return judge(consumers.heard(), each, statuses, time.monotonic() - started_s)


async def fill_and_kill(consumers: Consumers, transport: Transport, each: int, kills: int) -> None:
    """Return when all has arrived, and all consumers are at work again."""
    piece = max(each // (kills + 1), 1)
    for first in range(0, each, piece):
        await consumers.ready()
        count = min(piece, each - first)
        filling = asyncio.create_task(fill(transport, SESSIONS, count, first))
        await arrived(consumers, (first + count // 3) * len(SESSIONS))
        if first // piece < kills:
            await asyncio.to_thread(consumers.kill_one, random.randrange(CONSUMERS))
        await filling
    await arrived(consumers, each * len(SESSIONS))
    await consumers.ready()


async def arrived(consumers: Consumers, count: int) -> None:
    """Wait until so many are there, repetitions apart."""
    async with asyncio.timeout(60):
        while sum(len(set(said)) for said in consumers.heard().values()) < count:
            await asyncio.sleep(0.005)


def judge(heard: dict[str, list[str]], each: int, statuses: list[int], took_s: float) -> Outcome:
    """Repetitions apart, each session must have all numbers, and each after those before it."""
    lost, unordered, arrived, repeated = [], [], 0, 0
    for session in SESSIONS:
        said = heard.get(session, [])
        first = list(dict.fromkeys(said))
        lost += [f"{session}:{n}" for n in range(each) if str(n) not in set(first)]
        unordered += [session] if first != sorted(first, key=int) else []
        arrived += len(first)
        repeated += len(said) - len(first)
    return Outcome(arrived, repeated, lost, unordered, statuses, took_s)


async def run(kind: str, folder: Path, *, messages: int, kills: int) -> Outcome:
    """One run through the queue ``local`` or ``redis``."""
    if kind == "local":
        data = folder / "data"
        transport: Transport = LocalTransport(LocalQueue(data / QUEUE_FILE))
        source = ["--source", "local", "--data-dir", str(data)]
        return await kill_consumers(source, transport, folder, messages=messages, kills=kills)
    server = Valkey(folder)
    server.start()
    try:
        source = ["--source", "redis", "--dispatch-redis-url", server.url]
        transport = RedisTransport(server.url)
        return await kill_consumers(source, transport, folder, messages=messages, kills=kills)
    finally:
        server.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--messages", type=int, default=10_000)
    arguments = parser.parse_args()
    is_good = True
    for kind in ("local", "redis"):
        with tempfile.TemporaryDirectory() as folder:
            outcome = asyncio.run(
                run(kind, Path(folder), messages=arguments.messages, kills=arguments.kills)
            )
        print(
            f"{kind}: {arguments.kills} kills, {outcome.arrived} messages arrived,"
            f" {len(outcome.lost)} lost, {len(outcome.unordered)} sessions out of order,"
            f" {outcome.repeated} repeated, {outcome.took_s:.0f} s"
        )
        is_good &= not (outcome.lost or outcome.unordered or any(outcome.statuses))
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
