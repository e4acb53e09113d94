"""What goes wrong in a cluster, at random and by seed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tests.nodes.support.cluster import Cluster, Node

Fault = Callable[["Misfortune"], Awaitable[str]]
READY_WITHIN_S = 30.0


class Misfortune:
    """Does one fault after the other, each for a few seconds, and mends what it did."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.chance = random.Random(seed)
        self.done: list[str] = []
        """What happened, with seconds since the start."""
        self._began_s = time.monotonic()

    async def go_on_for(self, duration_s: float) -> None:
        """Every kind happens before one happens again."""
        until_s = time.monotonic() + duration_s
        bag: list[Fault] = []
        while time.monotonic() < until_s:
            if not bag:
                bag = list(FAULTS)
                self.chance.shuffle(bag)
            at_s = time.monotonic() - self._began_s
            what = await bag.pop()(self)
            self.done.append(f"{at_s:6.1f} s {what}")
            await asyncio.sleep(self.chance.uniform(0.5, 2.5))

    @property
    def node(self) -> Node:
        return self.chance.choice(self.cluster.nodes)

    async def lasting(self, at_most_s: float) -> float:
        duration_s = self.chance.uniform(0.3, at_most_s)
        await asyncio.sleep(duration_s)
        return duration_s

    async def start(self, node: Node) -> None:
        node.start()
        await asyncio.to_thread(node.server.wait_ready)


async def kill_worker(fate: Misfortune) -> str:
    node = fate.node
    workers = node.server.workers()
    if not workers:
        return "no worker to kill"
    worker = fate.chance.choice(workers)
    with suppress(ProcessLookupError):
        os.kill(worker, signal.SIGKILL)
    return f"worker {worker} of {node.host.address} killed"


async def kill_node(fate: Misfortune) -> str:
    node = fate.node
    await asyncio.to_thread(node.server.kill)
    duration_s = await fate.lasting(3)
    await fate.start(node)
    return f"{node.host.address} killed for {duration_s:.1f} s"


async def stop_node(fate: Misfortune) -> str:
    node = fate.node
    status = await asyncio.to_thread(node.server.stop)
    await fate.start(node)
    return f"{node.host.address} stopped with status {status} and started"


async def freeze_node(fate: Misfortune) -> str:
    """All its processes stand still, longer than leases last, and go on as if nothing had been."""
    node = fate.node
    os.killpg(node.server.process.pid, signal.SIGSTOP)
    duration_s = await fate.lasting(6)
    os.killpg(node.server.process.pid, signal.SIGCONT)
    return f"{node.host.address} frozen for {duration_s:.1f} s"


async def cut_node(fate: Misfortune) -> str:
    node = fate.node
    node.host.cut()
    duration_s = await fate.lasting(6)
    node.host.mend()
    return f"{node.host.address} cut off for {duration_s:.1f} s"


async def cut_store(fate: Misfortune) -> str:
    fate.cluster.store_host.cut()
    duration_s = await fate.lasting(5)
    fate.cluster.store_host.mend()
    return f"the store cut off for {duration_s:.1f} s"


async def restart_store(fate: Misfortune) -> str:
    store = fate.cluster.store
    await asyncio.to_thread(store.kill)
    duration_s = await fate.lasting(3)
    await asyncio.to_thread(store.start)
    return f"the store killed for {duration_s:.1f} s"


FAULTS: tuple[Fault, ...] = (
    kill_worker,
    kill_node,
    stop_node,
    freeze_node,
    cut_node,
    cut_store,
    restart_store,
    kill_worker,
)
