"""kill -9 of a worker at random moments while people talk: ``make kills``.

    python -m tests.nodes.kills --kills 20

Whoever was connected to the worker goes on at another one, which must take it up where it was.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from edge.session.store.opening import open_store
from tests.asr.fakes.openai_endpoint import FakeOpenAI
from tests.ingest.support.media import openai_environment
from tests.nodes.support.checker import client_faults, log_faults, log_of, until_told, words_doubled
from tests.nodes.support.clients import Client, Listener, Speaker, run_clients
from tests.support.server import Server, running

SESSION = "kills"
WELCOME_WITHIN_S = 2.0
WORKERS = 2
MOST_PAUSE_S = 2.0


class Outcome(msgspec.Struct):
    """What was broken, and how long clients took to be welcome again."""

    faults: list[str]
    words: int
    returns_s: list[float]


async def kills(
    location: str, count: int, seed: int, *, speakers: int = 4, listeners: int = 4
) -> Outcome:
    """Talk to a gateway on this store while ``count`` workers are killed, one after the other."""
    chance = random.Random(seed)
    async with FakeOpenAI() as service:
        settings = openai_environment(service, EDGESCRIBE_STORE=location)
        with running("--workers", str(WORKERS), environment=settings) as server:
            address = server.address
            talking = [Speaker(address, SESSION, f"voice-{n}") for n in range(speakers)]
            following = [Listener(address, SESSION) for _ in range(listeners)]
            clients: list[Client] = [*talking, *following]
            async with run_clients(clients):
                for _ in range(count):
                    await asyncio.sleep(chance.uniform(0.3, MOST_PAUSE_S))
                    await all_workers(server)
                    server.kill_worker(chance.choice(server.workers()))
                async with open_store(location) as store:
                    faults = await until_told(store, SESSION, talking, clients)
                    head, entries = await log_of(store, SESSION)
    faults += log_faults(head, entries)
    for client in clients:
        faults += client_faults(client, head, entries)
    faults += [f"{each.name} doubled" for each in talking if words_doubled(each, entries)]
    returns = [welcome for client in clients for welcome in client.welcomes if welcome.resumed]
    faults += [f"a history was given up: {each}" for each in returns if not each.recovered]
    returns_s = sorted(each.took_s for each in returns)
    faults += [f"welcome after {took_s:.2f} s" for took_s in returns_s if took_s > WELCOME_WITHIN_S]
    return Outcome(faults, sum(speaker.words for speaker in talking), returns_s)


async def all_workers(server: Server) -> None:
    """Wait until there is another worker to go to."""
    async with asyncio.timeout(60):
        while len(server.workers()) < WORKERS or server.get("/ready").status != 200:
            await asyncio.sleep(0.05)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="edgescribe-test-") as folder:
        location = str(Path(folder) / "sessions.db")
        outcome = asyncio.run(kills(location, arguments.kills, arguments.seed))
    print(
        f"{arguments.kills} workers killed, {outcome.words} words, "
        f"{len(outcome.returns_s)} returns, "
        f"the slowest welcome after {outcome.returns_s[-1]:.2f} s; "
        f"{len(outcome.faults)} promises broken (seed {arguments.seed})"
    )
    print(*outcome.faults, sep="\n")
    return bool(outcome.faults)


if __name__ == "__main__":
    sys.exit(main())
