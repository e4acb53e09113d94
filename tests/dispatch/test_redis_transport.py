"""Streams hold what waits and forget what was acknowledged, on one server and on several."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from dispatch import Envelope, Unreachable
from dispatch.redis_stream import (
    GROUP,
    MAX_SEEN,
    Partition,
    connect,
    disconnect,
    envelope_of,
    partition_of,
    partitions,
    trim,
)
from dispatch.transports.redis import RedisTransport
from tests.dispatch.support.targets import envelopes
from tests.session.store.support.failover import pair, sentinel
from tests.session.store.support.valkey import Valkey


@pytest.fixture
async def redis(shared_valkey: Valkey) -> AsyncIterator[Redis]:
    async with Redis.from_url(shared_valkey.url) as client:
        yield client


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """One node with all slots. It takes two seconds to serve them: long enough for other tests."""
    node = Valkey(tmp_path_factory.mktemp("cluster"), "--cluster-enabled", "yes")
    node.start()
    node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    yield node
    node.kill()


@pytest.fixture
def prefix() -> str:
    return secrets.token_hex(4)


async def read(redis: Redis, partition: Partition, group: str, count: int) -> list[bytes]:
    """The ids of the next entries, which are delivered and not acknowledged now."""
    [(_, entries)] = await redis.xreadgroup(group, "me", {partition.messages: ">"}, count)
    return [name for name, _ in entries]


async def test_only_what_every_group_acknowledged_is_trimmed(
    redis: Redis, prefix: str, shared_valkey: Valkey
) -> None:
    partition = partition_of("red", prefix)
    async with RedisTransport(shared_valkey.url, prefix) as transport:
        await transport.send(envelopes("red", 10))
    assert await trim(redis, partition, 0.0) == 0, "nobody has read anything"
    for group in (GROUP, "another"):
        await redis.xgroup_create(partition.messages, group, "0")
    names = await read(redis, partition, GROUP, 8)
    await redis.xack(partition.messages, GROUP, *names)
    assert await trim(redis, partition, 0.0) == 0, "the other group has read nothing"
    names = await read(redis, partition, "another", 6)
    await redis.xack(partition.messages, "another", *names[:2], *names[3:])
    assert await trim(redis, partition, 3600.0) == 0, "they are not old enough"
    assert await trim(redis, partition, 0.0) == 2
    assert await redis.xlen(partition.messages) == 8, "the third is not acknowledged"
    assert await trim(redis, partition_of("red", "nothing"), 0.0) == 0


async def test_a_stream_that_is_read_does_not_grow(
    redis: Redis, prefix: str, shared_valkey: Valkey
) -> None:
    """Trimmed as messages are added, and at once before one is turned away."""
    partition = partition_of("red", prefix)
    await redis.xgroup_create(partition.messages, GROUP, "0", mkstream=True)
    waiting = envelopes("red", 400)
    async with (
        RedisTransport(shared_valkey.url, prefix, kept_s=0.0, trim_every_s=0.0) as trimming,
        RedisTransport(shared_valkey.url, prefix, max_waiting=50, trim_every_s=3600) as keeping,
    ):
        for transport in (trimming, keeping):
            for _ in range(20):
                assert await transport.send(waiting[:10]) == 10
                del waiting[:10]
                names = await read(redis, partition, GROUP, 10)
                await redis.xack(partition.messages, GROUP, *names)
                assert await redis.xlen(partition.messages) <= 60


async def test_a_full_partition_takes_what_it_has_room_for(
    redis: Redis, prefix: str, shared_valkey: Valkey
) -> None:
    waiting = envelopes("red", 8)
    async with RedisTransport(shared_valkey.url, prefix, max_waiting=5) as transport:
        assert await transport.send(waiting) == 5
        assert await transport.send(waiting[:5]) == 5, "they are there already"
        with pytest.raises(Unreachable, match="5 messages wait"):
            await transport.send(waiting[5:])
        partition = partition_of("red", prefix)
        await redis.xgroup_create(partition.messages, GROUP, "0")
        names = await read(redis, partition, GROUP, 5)
        await redis.xack(partition.messages, GROUP, *names)
        assert await transport.send(waiting[5:]) == 3


async def test_the_same_id_of_another_epoch_is_another_message(
    redis: Redis, prefix: str, shared_valkey: Valkey
) -> None:
    [first] = envelopes("red", 1)
    second = msgspec.structs.replace(first, epoch="another")
    async with RedisTransport(shared_valkey.url, prefix) as transport:
        for envelope in (first, second, first, second):
            await transport.send([envelope])
    entries: Any = await redis.xrange(partition_of("red", prefix).messages)
    assert [envelope_of(fields) for _, fields in entries] == [first, second]


async def test_ids_are_forgotten_when_there_are_too_many(
    redis: Redis, prefix: str, shared_valkey: Valkey
) -> None:
    partition = partition_of("red", prefix)
    await redis.zadd(partition.seen, {f"old/{n}": 4e12 + n for n in range(MAX_SEEN + 100)})
    async with RedisTransport(shared_valkey.url, prefix) as transport:
        await transport.send(envelopes("red", 1))
    assert await redis.zcard(partition.seen) == MAX_SEEN


def test_sessions_are_spread_and_each_has_one_place() -> None:
    places = [partition_of(f"session {number}").number for number in range(1600)]
    assert all(50 < places.count(number) < 150 for number in range(16))
    assert partition_of("übung").messages == "{edgescribe:dispatch:13}:messages"


@pytest.mark.parametrize("fields", [{}, {b"id": b"red:1"}])
def test_an_entry_of_somebody_else_is_told(fields: dict[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="no field"):
        envelope_of(fields)


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://:secret@host",
        "redis+other://:secret@host:1",
        "http://:secret@host:1",
        "redis+sentinel://",
        "redis://:secret/@host:1",
    ],
)
def test_a_url_that_names_no_server_is_told_at_once_and_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="it must") as told:
        connect(url)
    assert "secret" not in str(told.value)


async def arrived(url: str, prefix: str) -> list[Envelope]:
    client = connect(url)
    try:
        found = []
        for partition in partitions(prefix):
            entries: Any = await client.xrange(partition.messages)
            found += [envelope_of(fields) for _, fields in entries]
        return found
    finally:
        await disconnect(client)


async def test_a_sentinel_tells_where_messages_go(tmp_path: Path, prefix: str) -> None:
    with pair(tmp_path) as (primary, _), sentinel(tmp_path / "sentinel", primary) as port:
        url = f"redis+sentinel://127.0.0.1:{port}/mymaster/0"
        async with RedisTransport(url, prefix) as transport:
            assert await transport.send(envelopes("red", 3)) == 3
        assert await arrived(url, prefix) == envelopes("red", 3)


async def test_a_cluster_carries_messages(cluster: Valkey, prefix: str) -> None:
    url = f"redis+cluster://127.0.0.1:{cluster.port}"
    async with RedisTransport(url, prefix, trim_every_s=0.0) as transport:
        async with asyncio.timeout(20):
            while True:
                try:
                    await transport.send(envelopes("red", 3))
                    break
                except Unreachable:
                    await asyncio.sleep(0.05)
        await asyncio.gather(*(transport.send(envelopes(f"s{n}", 3)) for n in range(20)))
    assert len(await arrived(url, prefix)) == 63
