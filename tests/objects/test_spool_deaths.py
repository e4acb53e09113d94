"""Whoever dies: what was acked is in the object store in the end, with the right bytes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import msgspec

from edge.objects.interface import ObjectStore
from edge.objects.opening import open_objects
from edge.objects.settings import ObjectSettings
from edge.objects.spool import SpooledStore
from tests.objects.support.outages import is_empty, until
from tests.objects.support.seaweed import Seaweed
from tests.objects.support.spool_worker import body_of


async def test_workers_that_are_killed_leave_nothing_behind_but_what_another_stores(
    frozen: Seaweed, behind_spool: ObjectSettings, bucket: ObjectStore, tmp_path: Path
) -> None:
    """Two of one data folder, killed in the middle of an outage; a third, started in it."""
    text = msgspec.json.encode(behind_spool).decode()
    module = [sys.executable, "-m", "tests.objects.support.spool_worker", text, str(tmp_path)]
    workers = [
        subprocess.Popen([*module, name, "100000"], stdout=subprocess.PIPE, text=True)
        for name in ("a", "b")
    ]
    acked: list[str] = []
    for worker in workers:
        assert worker.stdout is not None
        acked += [await asyncio.to_thread(worker.stdout.readline) for _ in range(10)]
    for worker in workers:
        worker.kill()
        rest, _ = worker.communicate()
        acked += rest.splitlines(keepends=True)
    keys = [line.strip() for line in acked if line.endswith(".pcm\n")]
    async with open_objects(behind_spool, tmp_path) as store:
        assert isinstance(store, SpooledStore)
        assert (await store.waiting()).objects >= len(keys) > 10
        assert await store.get(keys[0]) == body_of(keys[0])
        frozen.thaw()
        await until(lambda: is_empty(store))
    stored = await bucket.find("", limit=100_000)
    assert set(keys) <= set(stored) and len(stored) <= len(keys) + 2
    for key in stored:
        assert await bucket.get(key) == body_of(key)


async def test_a_server_that_is_killed_while_it_takes_objects_loses_none(
    seaweed: Seaweed, spooled: SpooledStore, bucket: ObjectStore
) -> None:
    """Killed in the middle of puts, it comes back with its disk as it was."""
    acked: list[str] = []

    async def stream(name: str) -> None:
        for seq in range(1, 41):
            key = f"{name}/{seq:08d}.pcm"
            await spooled.put(key, body_of(key), only_new=True)
            acked.append(key)

    async def outage() -> None:
        await until(lambda: len(acked) >= 10)
        await asyncio.to_thread(seaweed.kill)
        await until(lambda: spooled.away)
        await asyncio.to_thread(seaweed.start)

    await asyncio.gather(*(stream(name) for name in "abcd"), outage())
    await until(lambda: is_empty(spooled))
    assert await bucket.find("") == sorted(acked) and len(acked) == 160
    for key in acked:
        assert await bucket.get(key) == body_of(key)
    await until(lambda: not spooled.away)
