"""What only a file can do: be copied, replaced, damaged, or lie where nothing can be written."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from edge.errors import StoreDamaged, StoreUnavailable
from edge.session.store.interface import Draft
from edge.session.store.opening import open_store

DRAFT = [Draft("final", b"x")]


async def test_a_copy_taken_while_written_opens_with_a_new_epoch(tmp_path: Path) -> None:
    path, copy = tmp_path / "s.db", tmp_path / "copy.db"
    async with open_store(str(path)) as store:
        grant = await store.open_track("s", "t")
        for _ in range(50):
            await store.append(grant, DRAFT)
        writing = asyncio.gather(*(store.append(grant, DRAFT) for _ in range(200)))
        await asyncio.sleep(0.005)
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
        await writing
    async with open_store(str(copy)) as store:
        page = await store.read("s", 0)
        assert page is not None and page.head.epoch != grant.epoch
        offsets = [entry.offset for entry in page.entries]
        assert offsets == list(range(1, len(offsets) + 1)) and len(offsets) >= 50


async def test_an_older_copy_put_back_has_a_new_epoch(tmp_path: Path) -> None:
    path, copy = tmp_path / "s.db", tmp_path / "copy.db"
    async with open_store(str(path)) as store:
        grant = await store.open_track("s", "t")
        await store.append(grant, DRAFT)
    shutil.copy(path, copy)
    for _ in range(2):
        async with open_store(str(path)) as store:
            head = await store.head("s")
            assert head is not None and head.epoch == grant.epoch
            await store.append(await store.open_track("s", "t"), DRAFT)
    shutil.copy(copy, path)
    async with open_store(str(path)) as store:
        head = await store.head("s")
        assert head is not None and head.epoch != grant.epoch and head.head == 1


@pytest.mark.parametrize("content", [b"not a database at all" * 500, b"SQLite format 3\0" * 500])
async def test_a_damaged_file_is_named_as_such(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(content)
    with pytest.raises(StoreDamaged):
        await open_store(str(path)).open()


async def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="data directory"):
        await open_store(str(tmp_path / "none" / "s.db")).open()


async def test_a_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    async with open_store(str(tmp_path / "s.db")) as store:
        grant = await store.open_track("s", "t")
        await store.append(grant, DRAFT)
        pages = await store._writer.run(  # type: ignore[attr-defined]
            lambda db: db.execute("PRAGMA max_page_count=1").fetchone()[0]
        )
        with pytest.raises(StoreUnavailable, match="full"):
            for _ in range(pages * 10):
                await store.append(grant, [Draft("final", b"x" * 4000)])
        head = await store.head("s")
        await store._writer.run(  # type: ignore[attr-defined]
            lambda db: db.execute("PRAGMA max_page_count=100000")
        )
        assert head is not None
        assert await store.append(grant, DRAFT) == head.head + 1
