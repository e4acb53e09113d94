"""While the object store is away: acked objects are on local disk, and in the store afterwards."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import msgspec
import pytest
from prometheus_client import REGISTRY

from edge.errors import ObjectError, ObjectExists, ObjectMissing, ObjectsUnavailable
from edge.objects import spool_table
from edge.objects.interface import ObjectStore
from edge.objects.opening import SPOOL, open_objects
from edge.objects.settings import ObjectSettings
from edge.objects.spool import SpooledStore
from edge.objects.spool_table import Filled
from tests.objects.support.outages import is_empty, until
from tests.objects.support.seaweed import Seaweed
from tests.objects.support.spool_worker import body_of
from tests.support import disks


async def test_what_is_put_in_an_outage_is_read_at_once_and_stored_afterwards(
    frozen: Seaweed, spooled: SpooledStore, bucket: ObjectStore
) -> None:
    keys = [f"m/chunks/{seq:08d}.pcm" for seq in range(1, 41)]
    await asyncio.gather(*(spooled.put(key, body_of(key), only_new=True) for key in keys[:20]))
    assert spooled.away
    async with asyncio.timeout(2.0):
        # Nobody asks the store first any more.
        for key in keys[20:]:
            await spooled.put(key, body_of(key), only_new=True)
    for key in keys:
        assert await spooled.get(key) == body_of(key)
    with pytest.raises(ObjectExists):
        await spooled.put(keys[0], b"other", only_new=True)
    with pytest.raises(ObjectsUnavailable):
        await spooled.find("m/")
    frozen.thaw()
    await until(lambda: is_empty(spooled))
    assert await bucket.find("m/") == await spooled.find("m/") == keys
    for key in keys:
        assert await bucket.get(key) == body_of(key)
    await until(lambda: not spooled.away)


async def test_the_newest_of_a_key_wins_whatever_is_on_its_way(
    frozen: Seaweed, spooled: SpooledStore, bucket: ObjectStore
) -> None:
    for number in range(5):
        await spooled.put("m/result.json", b"%d" % number, content_type="application/json")
    await spooled.put("m/gone", b"x")
    await spooled.remove(["m/gone"])
    with pytest.raises(ObjectMissing):
        await spooled.get("m/gone")
    await spooled.put("m/again", b"x", only_new=True)
    await spooled.remove(["m/again"])
    await spooled.put("m/again", b"y", only_new=True)
    frozen.thaw()
    await until(lambda: is_empty(spooled))
    assert await bucket.find("m/") == ["m/again", "m/result.json"]
    assert await bucket.get("m/result.json") == b"4"
    assert await bucket.get("m/again") == b"y"


async def test_what_waits_is_found_together_with_what_is_stored(
    frozen: Seaweed, spooled: SpooledStore, bucket: ObjectStore
) -> None:
    """A page never skips a key, wherever it lies."""
    frozen.thaw()
    for seq in (1, 2, 5, 6, 9):
        await bucket.put(f"m/{seq}", b"stored")
    frozen.freeze()
    for seq in (0, 3, 4, 7, 8):
        await spooled.put(f"m/{seq}", b"waits")
    await spooled.put("m/6", b"waits")
    await spooled.remove(["m/8", "m/6"])
    frozen.thaw()
    found: list[str] = []

    async def page() -> bool:
        keys = await spooled.find("m/", found[-1] if found else "", 3)
        found.extend(keys)
        return not keys

    await until(page)
    assert found == [f"m/{seq}" for seq in (0, 1, 2, 3, 4, 5, 7, 9)]
    await until(lambda: is_empty(spooled))
    assert await bucket.find("m/") == found


async def test_a_new_object_does_not_replace_what_the_store_turns_out_to_have(
    frozen: Seaweed, spooled: SpooledStore, bucket: ObjectStore
) -> None:
    frozen.thaw()
    await bucket.put("m/1", b"before")
    frozen.freeze()
    await spooled.put("m/1", b"after", only_new=True)
    frozen.thaw()
    await until(lambda: is_empty(spooled))
    assert await spooled.get("m/1") == b"before"


async def test_a_full_spool_refuses_and_keeps_what_it_acked(
    frozen: Seaweed, behind_spool: ObjectSettings, bucket: ObjectStore, tmp_path: Path
) -> None:
    small = msgspec.structs.replace(behind_spool, spool_max_bytes=200_000)
    acked = []
    async with open_objects(small, tmp_path / "small") as store:
        with pytest.raises(ObjectsUnavailable, match=r"full.*EDGESCRIBE_SPOOL_MAX_BYTES"):
            for seq in range(1, 20):
                await store.put(f"m/{seq:08d}", body_of(str(seq)))
                acked.append(seq)
        assert len(acked) == 6
        frozen.thaw()
        await until(lambda: is_empty(store))
        await store.put("m/00000007", body_of("7"))
    for seq in [*acked, 7]:
        assert await bucket.get(f"m/{seq:08d}") == body_of(str(seq))


async def test_a_spool_on_a_full_disk_refuses_and_keeps_what_it_acked(
    frozen: Seaweed, behind_spool: ObjectSettings, bucket: ObjectStore, tmp_path: Path
) -> None:
    acked = []
    with disks.small_disk(tmp_path / "disk", megabytes=20) as disk:
        async with open_objects(behind_spool, disk) as store:
            with pytest.raises(ObjectsUnavailable, match="disk of the spool"):
                for seq in range(1, 200):
                    await store.put(f"m/{seq:08d}", body_of(str(seq)))
                    acked.append(seq)
            assert acked
            for seq in acked:
                assert await store.get(f"m/{seq:08d}") == body_of(str(seq))
            frozen.thaw()
            await until(lambda: is_empty(store))
    for seq in acked:
        assert await bucket.get(f"m/{seq:08d}") == body_of(str(seq))


async def test_what_the_store_refuses_for_good_keeps_nobody_waiting(
    frozen: Seaweed, spooled: SpooledStore, bucket: ObjectStore
) -> None:
    too_much = {f"m{number}": "x" * 2000 for number in range(20)}
    await spooled.put("m/refused", b"x", metadata=too_much)
    await spooled.put("m/fine", b"y")
    frozen.thaw()

    async def is_stored() -> bool:
        return await bucket.find("m/") == ["m/fine"] or (await spooled.waiting()).objects == 0

    await until(is_stored)
    await until(lambda: not spooled.away)
    assert await spooled.get("m/refused") == b"x"


async def test_a_spool_gives_its_disk_space_back(
    frozen: Seaweed, spooled: SpooledStore, tmp_path: Path
) -> None:
    for seq in range(100):
        await spooled.put(f"m/{seq:08d}", body_of(str(seq)))
    size = (tmp_path / SPOOL).stat().st_size + (tmp_path / f"{SPOOL}-wal").stat().st_size
    assert size > 3_000_000
    frozen.thaw()
    await until(lambda: (tmp_path / SPOOL).stat().st_size < 100_000)
    assert await spooled.waiting() == Filled(0, 0, 0.0)


async def test_a_damaged_spool_says_what_to_do(
    behind_spool: ObjectSettings, tmp_path: Path
) -> None:
    (tmp_path / SPOOL).write_bytes(b"not a database, " * 1000)
    with pytest.raises(ObjectError, match="move it away"):
        await open_objects(behind_spool, tmp_path).open()


async def test_what_waits_is_measured_until_it_has_arrived(
    frozen: Seaweed, spooled: SpooledStore
) -> None:
    taken = _operations("kept"), _operations("stored")
    for seq in range(3):
        await spooled.put(f"m/{seq}", body_of(str(seq)))
    waiting = await spooled.waiting()
    assert waiting.objects == 3 and waiting.bytes > 3 * len(body_of("0"))
    await until(lambda: _gauge("objects") == 3 and _gauge("age_seconds") > 0.2)
    assert _gauge("bytes") == waiting.bytes
    assert _operations("kept") == taken[0] + 3
    frozen.thaw()
    await until(lambda: _gauge("objects") == _gauge("bytes") == _gauge("age_seconds") == 0)
    assert _operations("stored") == taken[1] + 3


def test_a_spool_of_an_older_version_is_taken_up(tmp_path: Path) -> None:
    path = tmp_path / SPOOL
    spool_table.prepare(path)
    with contextlib.closing(spool_table.connect(path)) as db:
        operation = spool_table.Operation(key="m/1", kind="put", body=b"waits")
        spool_table.append(db, operation, 1 << 30, tmp_path)
        db.execute("ALTER TABLE operation DROP COLUMN since_ms")
    spool_table.prepare(path)
    with contextlib.closing(spool_table.connect(path)) as db:
        waiting = spool_table.filled(db)
        assert waiting.objects == 1 and waiting.oldest_age_s < 60
        assert spool_table.held(db, "m/1") == ("put", b"waits")


def _gauge(name: str) -> float:
    return REGISTRY.get_sample_value(f"edgescribe_spool_{name}") or 0.0


def _operations(outcome: str) -> float:
    labels = {"outcome": outcome}
    return REGISTRY.get_sample_value("edgescribe_spool_operations_total", labels) or 0.0
