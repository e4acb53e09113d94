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

import msgspec

from edge.session.store.opening import open_store
from tests.asr.fakes.openai_endpoint import KEY, FakeOpenAI
from tests.nodes.support.checker import client_faults, log_faults, log_of, until_told, words_doubled
from tests.nodes.support.clients import Client, Listener, Speaker, run_clients
from tests.nodes.support.cluster import Cluster, running_cluster
from tests.nodes.support.faults import Misfortune
from tests.nodes.support.network import Network

SETTINGS = {"OPENAI_API_KEY": KEY, "PROVIDERS_PRIORITY": "openai", "EDGESCRIBE_DURABILITY": "full"}
STORE_OPTIONS = ("--appendfsync", "always")


class Outcome(msgspec.Struct):
    """What happened, and every promise that was broken."""

    faults: list[str]
    happened: list[str]
    words: int
    doubled: int
    """Words that were told again: never silently, each with an offset of its own."""
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
    fate = Misfortune(cluster, seed)
    async with run_clients(clients):
        await fate.go_on_for(duration_s)
        async with open_store(cluster.store.url) as store:
            faults = await until_told(store, session, talking, clients)
            head, entries = await log_of(store, session)
    faults += log_faults(head, entries)
    for client in clients:
        faults += client_faults(client, head, entries)
    welcomes = [welcome for client in clients for welcome in client.welcomes]
    return Outcome(
        faults=faults,
        happened=fate.done,
        words=sum(speaker.words for speaker in talking),
        doubled=sum(words_doubled(speaker, entries) for speaker in talking),
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
        f"{outcome.doubled} of them told twice, "
        f"{outcome.entries} entries, {outcome.connections} connections, slowest welcome "
        f"{outcome.slowest_recovery_s:.2f} s after a loss; {len(outcome.faults)} promises broken"
    )
    print(*outcome.faults, sep="\n")
    return bool(outcome.faults)


if __name__ == "__main__":
    sys.exit(main())
