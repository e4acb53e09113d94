"""kill -9 of the dispatcher's target and of workers while people talk: ``make dispatch-kills``.

    python -m tests.dispatch.kills --finals 10000 --targets 20 --workers 5

Whatever is in the sessions' logs then must have reached the target, in order, once those that came
again are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, WebSocketException

from dispatch.outbox import message_id
from edge.session.entries import FinalEntry, decode_entry
from edge.session.store.interface import DeadLetter, OutboxRow, SessionStore
from edge.session.store.opening import open_store
from tests.dispatch.support.media import silence
from tests.dispatch.support.talkative import Talkative
from tests.dispatch.support.target import Taken, Target
from tests.nodes.support.checker import log_of
from tests.support.server import Server, running

WORKERS = 2
SESSIONS = ("interview", "面试 1", "third", "fourth")
TAGS = ("anna", "ben")
PER_STREAM_S = 25.0
QUIET_S = 240.0


class Outcome(msgspec.Struct):
    """What was broken, and how much there was to break."""

    faults: list[str]
    finals: int
    again: int
    """Messages that came more than once."""
    took_s: float


class MediaServer:
    """Sends silence to one session; comes back for ever."""

    def __init__(self, address: str, session: str) -> None:
        self._url = f"ws://{address}/transcribe?sessionId={session}&sendBack=true"
        self._url += "&useDispatcher=true"

    async def run(self) -> None:
        while True:
            with suppress(OSError, TimeoutError, InvalidHandshake, WebSocketException):
                async with connect(self._url, compression=None, close_timeout=0.2) as socket:
                    await asyncio.gather(silence(socket, *TAGS), self._ignore(socket))
            await asyncio.sleep(0.1)

    async def _ignore(self, socket: ClientConnection) -> None:
        async for _ in socket:
            pass
        raise ConnectionError("the gateway closed it")


async def kills(
    location: str,
    folder: Path,
    *,
    finals: int,
    targets: int,
    workers: int,
    seed: int,
    sessions: Sequence[str] = SESSIONS,
    per_stream_s: float = PER_STREAM_S,
) -> Outcome:
    """Say so many finals; kill the target and workers evenly spread over that time."""
    chance = random.Random(seed)
    target = Target(folder)
    began_s = time.monotonic()
    try:
        target.start()
        async with Talkative(per_s=per_stream_s, most=finals) as endpoint:
            environment = endpoint.environment | {
                "EDGESCRIBE_STORE": location,
                "EDGESCRIBE_DISPATCH_HTTP_URL": target.url,
            }
            with running("--workers", str(WORKERS), environment=environment) as server:
                clients = [MediaServer(server.address, session) for session in sessions]
                talking = [asyncio.create_task(client.run()) for client in clients]
                try:
                    victims = ["target"] * targets + ["worker"] * workers
                    chance.shuffle(victims)
                    await killing(victims, chance, endpoint, finals, target, server)
                finally:
                    for task in talking:
                        task.cancel()
                    await asyncio.gather(*talking, return_exceptions=True)
                async with open_store(location) as store:
                    await until_empty(store)
                    outcome = await judged(store, sessions, target.taken())
    finally:
        target.kill()
    outcome.took_s = time.monotonic() - began_s
    return outcome


async def killing(
    victims: Sequence[str],
    chance: random.Random,
    endpoint: Talkative,
    finals: int,
    target: Target,
    server: Server,
) -> None:
    """One victim after the other, until all has been said."""
    for number, victim in enumerate(victims, 1):
        due = (number - chance.random()) / len(victims) * finals * 0.95
        await until_said(endpoint, due)
        if victim == "target":
            target.kill()
            await asyncio.sleep(chance.uniform(0.0, 0.5))
            target.start()
        else:
            await all_workers(server)
            server.kill_worker(chance.choice(server.workers()))
    await until_said(endpoint, finals)
    await asyncio.sleep(1.0)


async def until_said(endpoint: Talkative, finals: float) -> None:
    async with asyncio.timeout(QUIET_S):
        while len(endpoint.said_s) < finals:
            await asyncio.sleep(0.02)


async def all_workers(server: Server) -> None:
    """Wait until there is another worker to go to."""
    async with asyncio.timeout(60):
        while len(server.workers()) < WORKERS or server.get("/ready").status != 200:
            await asyncio.sleep(0.05)


async def until_empty(store: SessionStore) -> None:
    """Wait until nothing waits in the outbox."""
    async with asyncio.timeout(QUIET_S):
        while await store.outbox_size():
            await asyncio.sleep(0.1)


async def judged(store: SessionStore, sessions: Sequence[str], taken: Sequence[Taken]) -> Outcome:
    """Every final of the logs was taken, as it is there, and none before an earlier one."""
    faults = [f"{name_of(letter)} died: {letter.reason}" for letter in await store.dead_letters()]
    first: dict[str, Taken] = {}
    for each in taken:
        first.setdefault(each.message_id, each)
    finals = 0
    for session in sessions:
        _, entries = await log_of(store, session)
        said: dict[str, FinalEntry] = {}
        for entry in entries:
            if isinstance(body := decode_entry(entry.body), FinalEntry):
                said[f"{session}:{entry.offset}"] = body
        finals += len(said)
        heard = {name: each for name, each in first.items() if each.message.session_id == session}
        faults += [f"{name} never came" for name in said.keys() - heard.keys()]
        faults += [f"{name} was never said" for name in heard.keys() - said.keys()]
        faults += [
            f"{name} came as {heard[name].message.text!r}, said was {body.text!r}"
            for name, body in said.items()
            if name in heard and heard[name].message.text != body.text
        ]
        offsets = [each.offset for each in heard.values()]
        faults += [
            f"{session}: {after} came after {before}"
            for before, after in itertools.pairwise(offsets)
            if after < before
        ]
    return Outcome(faults, finals, len(taken) - len(first), 0.0)


def name_of(letter: DeadLetter) -> str:
    row: OutboxRow = letter.row
    return message_id(row)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--finals", type=int, default=10_000)
    parser.add_argument("--targets", type=int, default=20)
    parser.add_argument("--workers", type=int, default=5)
    parser.add_argument("--store", default="", help="a redis:// URL; else SQLite in a new folder")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="edgescribe-test-") as name:
        folder = Path(name)
        outcome = asyncio.run(
            kills(
                arguments.store or str(folder / "sessions.db"),
                folder,
                finals=arguments.finals,
                targets=arguments.targets,
                workers=arguments.workers,
                seed=arguments.seed,
            )
        )
    print(
        f"target killed {arguments.targets} times, workers {arguments.workers} times: "
        f"{outcome.finals} finals in {outcome.took_s:.0f} s, {outcome.again} came again; "
        f"{len(outcome.faults)} promises broken (seed {arguments.seed})"
    )
    print(*outcome.faults, sep="\n")
    return bool(outcome.faults)


if __name__ == "__main__":
    sys.exit(main())
