"""Random faults on a cluster under load, and whether its promises held: ``make chaos``.

    python -m tests.nodes.chaos --minutes 10 --seed 1

Speakers talk and listeners follow through a naive balancer while workers are killed, nodes are
killed, stopped, frozen and cut off, and the store is cut off and killed. Everything that was said
has to be in the log afterwards, whoever was shown something must find it there.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time

import msgspec

from edge.session.store.opening import open_store
from tests.asr.fakes.openai_endpoint import KEY, FakeOpenAI
from tests.nodes.support.checker import client_faults, log_faults, log_of, word_faults
from tests.nodes.support.clients import Client, Listener, Speaker
from tests.nodes.support.cluster import Cluster, running_cluster
from tests.nodes.support.faults import Misfortune
from tests.nodes.support.network import Network

SETTLE_WITHIN_S = 60.0
SETTINGS = {"OPENAI_API_KEY": KEY, "PROVIDERS_PRIORITY": "openai", "EDGESCRIBE_DURABILITY": "full"}
STORE_OPTIONS = ("--appendfsync", "always")


class Outcome(msgspec.Struct):
    """What happened, and every promise that was broken."""

    faults: list[str]
    happened: list[str]
    words: int
    entries: int
    connections: int
    slowest_recovery_s: float


async def chaos(
    cluster: Cluster, seed: int, duration_s: float, *, speakers: int = 4, listeners: int = 4
) -> Outcome:
    """Talk, break things, mend them, wait until all is told, and judge."""
    session = f"chaos-{seed}"
    talking = [Speaker(cluster.address, session, f"voice-{n}") for n in range(speakers)]
    clients: list[Client] = [
        *talking,
        *(Listener(cluster.address, session) for _ in range(listeners)),
    ]
    tasks = [asyncio.create_task(client.run()) for client in clients]
    fate = Misfortune(cluster, seed)
    try:
        await fate.go_on_for(duration_s)
        for speaker in talking:
            speaker.is_silent = True
        async with open_store(cluster.store.url) as store:
            until_s = time.monotonic() + SETTLE_WITHIN_S
            while True:
                head, entries = await log_of(store, session)
                faults = log_faults(head, entries)
                for speaker in talking:
                    faults += word_faults(speaker, entries)
                behind = [each.name for each in clients if each.offset != head.head]
                if (not faults and not behind) or time.monotonic() > until_s:
                    break
                await asyncio.sleep(0.5)
        faults += [f"{name} has not come up with the log" for name in behind]
        for client in clients:
            faults += client_faults(client, head, entries)
    finally:
        for client in clients:
            client.is_stopping = True
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    faults += [repr(end) for end in ends if isinstance(end, Exception)]
    welcomes = [welcome for client in clients for welcome in client.welcomes]
    return Outcome(
        faults=faults,
        happened=fate.done,
        words=sum(speaker.words for speaker in talking),
        entries=len(entries),
        connections=len(welcomes),
        slowest_recovery_s=max(welcome.took_s for welcome in welcomes),
    )


async def run(seed: int, duration_s: float, nodes: int = 2, workers: int = 2) -> Outcome:
    """A cluster of its own, and chaos on it."""
    with Network() as network:
        async with FakeOpenAI(host=network.address) as service:
            changes = {**SETTINGS, "OPENAI_REALTIME_URL": service.url}
            with running_cluster(
                nodes,
                workers,
                network=network,
                environment=changes,
                store_options=STORE_OPTIONS,
            ) as cluster:
                return await chaos(cluster, seed, duration_s)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    outcome = asyncio.run(run(arguments.seed, 60 * arguments.minutes))
    print(*outcome.happened, sep="\n")
    print(
        f"{len(outcome.happened)} faults in {arguments.minutes:g} minutes, {outcome.words} words, "
        f"{outcome.entries} entries, {outcome.connections} connections, slowest welcome "
        f"{outcome.slowest_recovery_s:.2f} s after a loss; {len(outcome.faults)} promises broken"
    )
    print(*outcome.faults, sep="\n")
    return bool(outcome.faults)


if __name__ == "__main__":
    sys.exit(main())
