"""A hundred thousand messages that wait as the gateway starts: ``make dispatch-backlog``.

    python -m tests.dispatch.backlog --way local --store redis

How soon it takes work, and how fast they go.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from dispatch.messages import transcription
from edge.session.store.interface import Draft, SessionStore
from edge.session.store.opening import open_store
from tests.dispatch.support.target import Target
from tests.session.store.support.valkey import Valkey
from tests.support.server import QUIET_RECOGNIZER, starting

AT_ONCE = 500
WITHIN_S = 600.0


class Outcome(msgspec.Struct, frozen=True):
    """How long it took until the gateway was ready, and how many messages a second went."""

    ready_s: float
    per_s: float
    dead: int


async def fill(store: SessionStore, rows: int, sessions: int) -> None:
    """Finals of all sessions, each with its message."""
    for number in range(sessions):
        name = f"session-{number}"
        grant = await store.open_track(name, "anna")
        left = rows // sessions
        while left:
            count = min(left, AT_ONCE)
            left -= count
            texts = [[f"the {left + each}th thing said in {name}"] for each in range(count)]
            bodies = [transcription(name, "anna", text, 1) or b"" for text in texts]
            drafts = [Draft("final", body) for body in bodies]
            await store.append(grant, drafts, list(enumerate(bodies)))


async def started(
    location: str,
    rows: int,
    sessions: int,
    settings: Mapping[str, str],
    workers: int = 1,
    *,
    drained: bool = True,
) -> Outcome:
    """Fill a store, start a gateway on it, and wait until nothing waits any more.

    Without ``drained`` a second after the start tells how fast they go, the start included.
    """
    async with open_store(location) as store:
        await fill(store, rows, sessions)
    environment = QUIET_RECOGNIZER | {"EDGESCRIBE_STORE": location} | dict(settings)
    began_s = time.monotonic()
    with starting("--workers", str(workers), environment=environment) as server:
        await asyncio.to_thread(server.wait_ready)
        ready_s = time.monotonic() - began_s
        async with open_store(location) as store, asyncio.timeout(WITHIN_S):
            first, first_s = await store.outbox_size(), time.monotonic()
            took_s, left = 0.0, first
            while left and (drained or took_s < 1.0):
                await asyncio.sleep(0.2)
                left, took_s = await store.outbox_size(), time.monotonic() - first_s
            dead = len(await store.dead_letters())
    if not drained or not first:
        return Outcome(ready_s, (rows - left) / (ready_s + took_s), dead)
    return Outcome(ready_s, first / took_s, dead)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--way", choices=("local", "redis", "http"), default="local")
    parser.add_argument("--store", choices=("sqlite", "redis"), default="sqlite")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="edgescribe-test-") as name, ExitStack() as stack:
        folder = Path(name)
        location, settings = str(folder / "sessions.db"), dict[str, str]()
        if "redis" in (arguments.store, arguments.way):
            server = Valkey(folder)
            server.start()
            stack.callback(server.kill)
            if arguments.store == "redis":
                location = server.url
            if arguments.way == "redis":
                settings["EDGESCRIBE_DISPATCH_REDIS_URL"] = server.url
        if arguments.way == "http":
            target = Target(folder)
            target.start()
            stack.callback(target.kill)
            settings["EDGESCRIBE_DISPATCH_HTTP_URL"] = target.url
        outcome = asyncio.run(
            started(location, arguments.rows, arguments.sessions, settings, arguments.workers)
        )
    print(
        f"{arguments.rows} messages of {arguments.sessions} sessions in {arguments.store}, by "
        f"{arguments.way}: ready after {outcome.ready_s:.2f} s, then {outcome.per_s:.0f} a second; "
        f"{outcome.dead} dead"
    )
    return bool(outcome.dead)


if __name__ == "__main__":
    sys.exit(main())
