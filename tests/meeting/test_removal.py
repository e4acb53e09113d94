"""The objects of sessions that are deleted, or expire, go with them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from edge.errors import ObjectsUnavailable
from edge.meeting.keys import chunk_key
from edge.meeting.removal import FAMILY, SCOPE, Removal
from edge.session.retention import Retention
from tests.meeting.support.stored import Worker, worker

SECOND = bytes(32000)


async def keys(w: Worker) -> list[str]:
    return await w.objects.find("")


async def two_sessions(w: Worker) -> list[str]:
    """Their keys; the name of one begins with that of the other."""
    await w.speak(SECOND * 2, session="a")
    await w.speak(SECOND, session="a b")
    await w.finalizer.finalize("a")
    return await w.objects.find("sessions/a/")


async def test_a_session_that_is_deleted_leaves_no_object_and_others_keep_theirs(
    tmp_path: Path,
) -> None:
    async with worker(tmp_path) as w:
        gone = await two_sessions(w)
        others = [key for key in await keys(w) if key not in gone]
        removal = Removal(w.store, w.objects)
        await removal.intend("a")
        assert await w.store.delete("a")
        await removal.remove("a")
        assert len(gone) == 3 and len(others) == 1
        assert await keys(w) == others


async def test_objects_go_later_when_the_object_store_was_away_or_the_worker_died(
    tmp_path: Path,
) -> None:
    async with worker(tmp_path) as w:
        gone = await two_sessions(w)
        removal = Removal(w.store, w.objects, again_after_ms=0)
        await removal.intend("a")
        await w.store.delete("a")
        remove_all = w.objects.remove_all

        async def refuse(prefix: str) -> int:
            raise ObjectsUnavailable("the object store is away")

        w.objects.remove_all = refuse  # type: ignore[method-assign]
        await removal.remove("a")
        await removal.sweep()
        assert set(gone) <= set(await keys(w))
        w.objects.remove_all = remove_all  # type: ignore[method-assign]
        await removal.sweep()
        assert len(await keys(w)) == 1
        assert not await w.store.records(SCOPE, FAMILY)


async def test_a_chunk_that_was_on_its_way_when_its_session_was_deleted_goes_too(
    tmp_path: Path,
) -> None:
    async with worker(tmp_path) as w:
        await two_sessions(w)
        removal = Removal(w.store, w.objects, again_after_ms=1000)
        await removal.intend("a")
        await w.store.delete("a")
        await removal.remove("a")
        await w.objects.put(chunk_key("a", "teacher", 3), SECOND)
        await removal.sweep()
        assert len(await keys(w)) == 2, "it may still be coming"
        await asyncio.sleep(1.1)
        await removal.sweep()
        assert len(await keys(w)) == 1


async def test_a_session_that_was_not_deleted_after_all_keeps_its_objects(tmp_path: Path) -> None:
    async with worker(tmp_path) as w:
        kept = await two_sessions(w)
        removal = Removal(w.store, w.objects, again_after_ms=0)
        await removal.intend("a")
        await removal.sweep()
        assert set(kept) <= set(await keys(w))
        assert not await w.store.records(SCOPE, FAMILY)


async def test_what_expires_goes_with_its_objects(tmp_path: Path) -> None:
    async with worker(tmp_path) as w:
        await two_sessions(w)
        removal = Removal(w.store, w.objects, again_after_ms=0)
        await asyncio.sleep(0.05)
        assert await Retention(0.01, w.store, removal.intend).sweep() == 2
        await removal.sweep()
        assert await keys(w) == []
