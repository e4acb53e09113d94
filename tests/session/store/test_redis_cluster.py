"""The keys of a session lie together in a Cluster of three."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.errors import StoreUnavailable
from edge.session.store.follower import Followers
from edge.session.store.interface import Draft, Signal
from edge.session.store.opening import open_store
from tests.session.store.support.valkey import Valkey

SLOTS = 16384


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[Valkey]]:
    nodes = []
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        nodes.append(Valkey(folder, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000"))
    try:
        for number, node in enumerate(nodes):
            node.start()
            first, last = SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1
            node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            node.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in nodes[1:]:
            nodes[0].client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port)
        yield nodes
    finally:
        for node in nodes:
            node.kill()


async def test_a_cluster_carries_sessions(cluster: list[Valkey]) -> None:
    async with asyncio.timeout(15):
        while not all(
            b"cluster_state:ok"
            in bytes(str(node.client.execute_command("CLUSTER", "INFO")), "utf8")
            for node in cluster
        ):
            await asyncio.sleep(0.05)
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in cluster)
    async with open_store(f"redis+cluster://{hosts}") as store:
        names = [f"session {number} {{x}}" for number in range(12)]
        for name in names:
            grant = await store.open_track(name, "t")
            assert await store.append(grant, [Draft("final", b"1")], [(0, b"m")]) == 1
            await store.put(name, "config", "k", b"v", 0)
        assert [info.name for info in await store.sessions()] == sorted(names)
        rows = await store.claim("w", 100)
        assert {row.session for row in rows} == set(names)
        await store.ack("w", rows)
        assert await store.outbox_size() == 0
        heard: asyncio.Queue[Signal] = asyncio.Queue()
        end = store.listen(names[0], heard.put_nowait)
        async with Followers(store).follow(names[0]) as follower, asyncio.timeout(5):
            assert len(await follower.next()) == 1
            await store.note(names[0], [Draft("event", b"2")])
            assert len(await follower.next()) == 1
        end()
        assert await store.delete(names[0])
    assert all(node.client.dbsize() > 5 for node in cluster)
    with pytest.raises(StoreUnavailable, match="appendfsync always"):
        await open_store(f"redis+cluster://{hosts}", "full").open()
    for node in cluster:
        node.client.config_set("appendfsync", "always")
    async with open_store(f"redis+cluster://{hosts}", "full") as store:
        assert await store.append(await store.open_track("s", "t"), [Draft("final", b"1")]) == 1
