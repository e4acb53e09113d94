"""Objects in a folder: whole or not there, whoever dies; in the order of their keys."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import ObjectError, ObjectsUnavailable
from edge.objects.files import FileStore

PART = st.text("ab.-~_0", min_size=1, max_size=3).filter(lambda part: part not in (".", ".."))
KEYS = st.sets(st.lists(PART, min_size=1, max_size=3).map("/".join), max_size=12)


@pytest.fixture(params=[False, True], ids=["normal", "fsync"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[FileStore]:
    async with FileStore(tmp_path / "objects", fsync=request.param) as opened:
        yield opened


@settings(max_examples=40, deadline=None)
@given(keys=KEYS, prefix=st.text("ab./", max_size=3), limit=st.integers(1, 5))
def test_keys_are_found_in_the_order_of_their_bytes_page_by_page(
    tmp_path_factory: pytest.TempPathFactory, keys: set[str], prefix: str, limit: int
) -> None:
    files = {key for key in keys if not any(other.startswith(f"{key}/") for other in keys)}

    async def check() -> None:
        async with FileStore(tmp_path_factory.mktemp("objects")) as store:
            for key in files:
                await store.put(key, b"")
            found: list[str] = []
            while page := await store.find(prefix, found[-1] if found else "", limit):
                assert len(page) <= limit
                found += page
            wanted = sorted(key for key in files if key.startswith(prefix))
            assert found == wanted
            assert await store.remove_all(prefix) == len(wanted)
            assert await store.find("") == sorted(files - set(wanted))

    head = prefix.rpartition("/")[0].split("/")
    if any(part in ("", ".", "..") for part in head) and "/" in prefix:
        return
    asyncio.run(check())


async def test_names_may_be_longer_than_file_systems_take(store: FileStore) -> None:
    keys = [f"sessions/~{'x' * size}/result.json" for size in (199, 200, 343)]
    for key in keys:
        await store.put(key, key.encode())
    assert await store.find("sessions/") == sorted(keys)
    for key in keys:
        assert await store.get(key) == key.encode()
        assert await store.remove_all(key.removesuffix("result.json")) == 1


async def test_the_folder_of_bodies_that_are_written_is_no_key(store: FileStore) -> None:
    with pytest.raises(ObjectError, match="is no key"):
        await store.put(".new/x", b"")


async def test_nothing_is_left_of_folders_that_are_empty(store: FileStore, tmp_path: Path) -> None:
    await store.put("a/b/c", b"")
    await store.put("a/d", b"")
    await store.remove_all("a/b/")
    assert (tmp_path / "objects/a/d").exists() and not (tmp_path / "objects/a/b").exists()


async def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ObjectsUnavailable, match="file"):
        await FileStore(tmp_path / "file").open()
    store = FileStore(tmp_path / "closed")
    with pytest.raises(ObjectsUnavailable, match="closed"):
        await store.get("a")


WRITER = """
import asyncio, sys
from pathlib import Path
from edge.objects.files import FileStore

async def main():
    async with FileStore(Path(sys.argv[1])) as store:
        for number in range(10**6):
            await store.put(f"a/{number % 3}", str(number).encode() * 5000)
            if number == 2:
                print("begun", flush=True)

asyncio.run(main())
"""


async def test_whoever_dies_while_it_writes_leaves_no_half_object(tmp_path: Path) -> None:
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None and writer.stdout.readline()
        writer.kill()
        writer.wait()
        writer.stdout.close()
    async with FileStore(tmp_path) as store:
        assert await store.find("") == ["a/0", "a/1", "a/2"]
        for key in await store.find(""):
            body = await store.get(key)
            number = body[: len(body) // 5000]
            assert body == number * 5000


async def test_bodies_that_were_never_moved_to_their_place_are_swept_up(tmp_path: Path) -> None:
    async with FileStore(tmp_path) as store:
        await store.put("a", b"")
    left, fresh = tmp_path / ".new" / "left", tmp_path / ".new" / "fresh"
    left.write_bytes(b"half")
    fresh.write_bytes(b"half")
    os.utime(left, (0, 0))
    async with FileStore(tmp_path):
        assert not left.exists() and fresh.exists()
