"""What only a file can do: be copied, replaced, damaged, or lie where nothing can be written."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.errors import StoreDamaged, StoreUnavailable
from edge.session.store import sqlite
from edge.session.store.interface import Draft
from edge.session.store.opening import open_store
from edge.session.store.sqlite import SqliteStore
from tests.session.store.support.workers import line_of, lines_of, start_writer, tell
from tests.support import disks

DRAFT = [Draft("final", b"x")]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    with disks.small_disk(tmp_path / "disk") as folder:
        yield folder


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


async def test_a_full_disk_refuses_and_recovers(small_disk: Path) -> None:
    """Nothing confirmed is lost, nothing half done stays, and room is all that is needed."""
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 3_000_000)
    async with open_store(str(small_disk / "s.db")) as store:
        grant = await store.open_track("s", "t")
        with pytest.raises(StoreUnavailable, match="full: free space"):
            for _ in range(1000):
                await store.append(grant, [Draft("final", b"x" * 4000)] * 10)
        page = await store.read("s", grant.acked - 1)
        assert page is not None and page.head.head == grant.acked > 0
        assert [entry.offset for entry in page.entries] == [grant.acked]
        with pytest.raises(StoreUnavailable, match="full: free space"):
            await asyncio.gather(
                *(store.append(grant, [Draft("final", b"x" * 4000)] * 100) for _ in range(20))
            )
        confirmed = grant.acked
        filler.unlink()
        assert await store.append(grant, DRAFT) >= confirmed + 1
    async with open_store(str(small_disk / "s.db")) as store:
        head = await store.head("s")
        assert head is not None and (head.epoch, head.head) == (grant.epoch, grant.acked)


async def test_a_disk_that_is_read_only_is_a_clear_error(small_disk: Path) -> None:
    async with open_store(str(small_disk / "s.db")) as store:
        await store.note("s", [Draft("event", b"x")])
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreUnavailable, match="data directory that it may write"):
        await open_store(str(small_disk / "s.db")).open()


async def test_pages_damaged_in_the_middle_are_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with open_store(str(path)) as store:
        grant = await store.open_track("s", "t")
        await store.append(grant, [Draft("final", b"x" * 1000)] * 500)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(size - 16384))
    with pytest.raises(StoreDamaged):
        async with open_store(str(path)) as store:
            for after in range(0, 500, 50):
                await store.read("s", after)
            await store.append(await store.open_track("s", "t"), DRAFT)


async def test_a_worker_that_was_busy_hears_of_everything_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its queue holds ten datagrams; what did not fit is told again, not found at the next look."""
    monkeypatch.setattr(sqlite, "LOOK_S", 60.0)
    count = 200
    async with open_store(str(tmp_path / "s.db")) as store:
        writer = await start_writer(str(tmp_path / "s.db"), "s", "t", count + 1, when_told=True)
        heard = asyncio.Event()
        end = store.listen("s", lambda signal: heard.set() if signal.head == count else None)
        for _ in range(count):
            tell(writer)
        while not (await line_of(writer)).startswith("1 "):
            pass
        time.sleep(0.4)
        async with asyncio.timeout(10):
            await heard.wait()
        end()
        tell(writer)
        assert (await lines_of(writer))[-1].startswith(f"{count + 1} ")


async def test_a_worker_stopped_within_a_commit_holds_others_up_until_it_dies(
    tmp_path: Path,
) -> None:
    """The kernel gives the lock of a dead process back; until then callers are told in time."""
    path = tmp_path / "s.db"
    async with SqliteStore(path, deadline_s=0.5) as store:
        grant = await store.open_track("s", "t")
        holder = await asyncio.create_subprocess_exec(
            *("flock", str(path.with_suffix(".write-lock")), "sh", "-c", "echo held; sleep 60"),
            stdout=PIPE,
            start_new_session=True,
        )
        assert holder.stdout is not None
        await holder.stdout.readline()
        with pytest.raises(StoreUnavailable, match="another process holds its lock"):
            await store.append(grant, DRAFT)
        os.killpg(holder.pid, signal.SIGKILL)
        await holder.wait()
        assert await store.append(grant, DRAFT) == 1
