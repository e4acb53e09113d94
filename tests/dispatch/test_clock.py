"""A wall clock that is set by an hour loses nothing, holds nothing up and doubles nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from dispatch import Dispatcher, Envelope, Retrying, Transport, Unreachable
from edge.session.store.interface import Draft, OutboxRow, SessionStore
from edge.session.store.opening import open_store
from edge.session.store.redis_outbox import WAITING
from tests.session.store.support.valkey import Valkey

HOUR_S = 3600.0
SESSIONS = 8
EACH = 30
WITHIN_S = 6.0


class Slow(Transport):
    """Takes a few messages of a session at a time; ``is_away`` keeps it from taking any."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.is_away = False
        self.asked = 0

    async def send(self, envelopes: Sequence[Envelope]) -> int:
        self.asked += 1
        if self.is_away:
            raise Unreachable("away")
        some = [each.message_id for each in envelopes[:2]]
        await asyncio.sleep(0.02)
        self.taken += some
        return len(some)


class Clock:
    """The wall clock of this process; everything else goes on as it did."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._time, self._time_ns = time.time, time.time_ns

    def set(self, by_s: float) -> None:
        self._patch.setattr(time, "time", lambda: self._time() + by_s)
        self._patch.setattr(time, "time_ns", lambda: self._time_ns() + int(by_s * 1e9))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SessionStore]:
    async with open_store(str(tmp_path / "sessions.db")) as opened:
        await fill(opened)
        yield opened


async def fill(store: SessionStore) -> None:
    for number in range(SESSIONS):
        grant = await store.open_track(f"s{number}", "anna")
        drafts = [Draft("final", b"%d" % each) for each in range(EACH)]
        await store.append(grant, drafts, [(n, b"{}") for n in range(EACH)])


def dispatcher(
    store: SessionStore, target: Transport, lease_s: float = 30.0
) -> Dispatcher[OutboxRow]:
    retrying = Retrying(first_delay_s=0.1, max_delay_s=0.3, probe_every_s=0.1)
    return Dispatcher(store, target, retrying, limit=20, idle_s=0.02, lease_s=lease_s)


async def emptied(store: SessionStore, *workers: Dispatcher[OutboxRow]) -> None:
    """Wait until they have delivered all."""
    async with asyncio.timeout(WITHIN_S):
        while await store.outbox_size():
            await asyncio.sleep(0.02)
    for worker in workers:
        worker.stop()


ALL = sorted(f"s{n}:{offset}" for n in range(SESSIONS) for offset in range(1, EACH + 1))


@pytest.mark.parametrize("by_s", [HOUR_S, -HOUR_S])
async def test_workers_that_deliver_notice_nothing(
    store: SessionStore, clock: Clock, by_s: float
) -> None:
    target = Slow()
    workers = [dispatcher(store, target) for _ in range(2)]
    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(worker.run())
        while len(target.taken) < len(ALL) // 3:
            await asyncio.sleep(0.01)
        clock.set(by_s)
        await emptied(store, *workers)
    assert sorted(target.taken) == ALL
    for number in range(SESSIONS):
        mine = [name for name in target.taken if name.startswith(f"s{number}:")]
        assert mine == [f"s{number}:{offset}" for offset in range(1, EACH + 1)]


@pytest.mark.parametrize("by_s", [HOUR_S, -HOUR_S])
async def test_what_waits_for_another_attempt_waits_no_longer(
    store: SessionStore, clock: Clock, by_s: float
) -> None:
    target = Slow()
    target.is_away = True
    worker = dispatcher(store, target)
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run())
        while target.asked < SESSIONS:
            await asyncio.sleep(0.01)
        clock.set(by_s)
        target.is_away = False
        await emptied(store, worker)
    assert sorted(target.taken) == ALL


@pytest.mark.parametrize("by_s", [HOUR_S, -HOUR_S])
async def test_a_gateway_that_starts_after_it_delivers_what_it_finds(
    store: SessionStore, clock: Clock, by_s: float
) -> None:
    """What another had leased, and what was to be tried again, before the clock was set."""
    leased = await store.claim("dead", EACH, 30.0)
    waiting = await store.claim("failed", EACH, 30.0)
    await store.retry("failed", waiting[0], 30.0)
    await store.close()
    clock.set(by_s)
    await store.open()
    target = Slow()
    worker = dispatcher(store, target)
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run())
        await emptied(store, worker)
    assert leased and sorted(target.taken) == ALL


async def test_leases_of_a_redis_whose_clock_was_set_back_hold_nobody_up(tmp_path: Path) -> None:
    """All that was to end soon by its clock would end an hour later."""
    server = Valkey(tmp_path)
    server.start()
    try:
        async with open_store(server.url) as store:
            await fill(store)
            leased = await store.claim("dead", EACH * SESSIONS, 30.0)
            for name, score in server.client.zrange(WAITING, 0, -1, withscores=True):
                server.client.zadd(WAITING, {name: score + HOUR_S * 1000})
            for key in server.client.keys("*"):
                if server.client.type(key) == b"hash" and server.client.hexists(key, "due"):
                    server.client.hincrby(key, "due", int(HOUR_S * 1000))
            target = Slow()
            worker = dispatcher(store, target, lease_s=1.0)
            async with asyncio.TaskGroup() as group:
                group.create_task(worker.run())
                await emptied(store, worker)
    finally:
        server.kill()
    assert len(leased) == len(ALL)
    assert sorted(target.taken) == ALL
