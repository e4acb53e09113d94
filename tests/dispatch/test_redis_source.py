"""What a server gave out in an answer that never arrived is not left behind."""

from __future__ import annotations

import asyncio
import secrets
import signal
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import RedisError

from dispatch.redis_stream import PARTITIONS
from dispatch.sources import leases
from dispatch.sources.redis import RedisRow, RedisSource
from dispatch.transports.redis import RedisTransport
from tests.dispatch.queue_kills import queue_kills
from tests.dispatch.support.targets import envelope_of, envelopes
from tests.session.store.support.valkey import Valkey


async def test_entries_of_a_lost_answer_are_read_again_before_newer_ones(
    shared_valkey: Valkey,
) -> None:
    """The server hands them out after the consumer hung up, and takes them for delivered."""
    url, prefix = shared_valkey.url, secrets.token_hex(4)
    process = shared_valkey.process
    assert process is not None
    rows: list[RedisRow] = []
    async with (
        RedisTransport(url, prefix) as transport,
        RedisSource(url, prefix, block_s=0.01, deadline_s=1.0, lease_s=30.0) as source,
        asyncio.timeout(20),
    ):
        waiting = {f"first {number}" for number in range(4 * PARTITIONS)}
        for session in waiting:
            await transport.send([envelope_of(session, 1)])
        while waiting:
            first = await source.claim("a", 1000)
            await source.ack("a", first)
            waiting -= {row.session for row in first}
        await transport.send(envelopes("red", 3))
        process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises((RedisError, OSError)):
                await source.claim("a", 100)
        finally:
            process.send_signal(signal.SIGCONT)
        await transport.send([envelope_of("red", 4)])
        while len(rows) < 4:
            try:
                rows += await source.claim("a", 100)
            except (RedisError, OSError):
                continue
            await source.ack("a", rows)
    assert [row.offset for row in rows] == [1, 2, 3, 4]


async def test_what_was_taken_before_a_renewal_broke_off_is_read(
    shared_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server holds the leases for the consumer, which has only half of the answers."""
    url, prefix = shared_valkey.url, secrets.token_hex(4)
    hold, asked = leases._hold.run, 0

    async def breaks(*args: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == PARTITIONS // 2:
            raise ConnectionError("the server went away")
        return await hold(*args)

    monkeypatch.setattr(leases._hold, "run", breaks)
    waiting = {f"session {number}" for number in range(4 * PARTITIONS)}
    async with (
        RedisTransport(url, prefix) as transport,
        RedisSource(url, prefix, block_s=0.01) as source,
        asyncio.timeout(20),
    ):
        for session in waiting:
            await transport.send([envelope_of(session, 1)])
        with pytest.raises(ConnectionError):
            await source.claim("a", 1000)
        while waiting:
            rows = await source.claim("a", 1000)
            await source.ack("a", rows)
            waiting -= {row.session for row in rows}


async def test_a_server_that_is_killed_twice_loses_nothing_and_keeps_the_order(
    tmp_path: Path,
) -> None:
    """The short form of ``make queue-kills``."""
    outcome = await queue_kills(tmp_path, messages=600, kills=2)
    # A fast machine is done before the second.
    assert (outcome.arrived, outcome.faults) == (600, []) and outcome.kills
