"""What it costs to store a chunk of a recording as a file, beside a bare write and rename."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.objects.files import FileStore

CHUNK = os.urandom(32_000)
TOGETHER = 32
"""Puts that wait for each other, as those of many streams do."""


def bare(folder: Path, fsync: bool) -> Callable[[int], None]:
    """Write and rename in this thread: what the disk and Python take alone."""
    folder.mkdir()

    def put(number: int) -> None:
        new = folder / f"new-{number}"
        with new.open("xb") as file:
            file.write(CHUNK)
            if fsync:
                file.flush()
                os.fsync(file.fileno())
        new.rename(folder / f"{number:08d}.pcm")
        if fsync:
            descriptor = os.open(folder, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)

    return put


@pytest.mark.parametrize("fsync", [False, True], ids=["normal", "fsync"])
def test_bare_write_and_rename(benchmark: Any, tmp_path: Path, fsync: bool) -> None:
    put = bare(tmp_path / "bare", fsync)
    numbers = iter(range(10**9))
    benchmark(lambda: [put(next(numbers)) for _ in range(TOGETHER)])
    benchmark.extra_info["puts"] = TOGETHER


@pytest.mark.parametrize("fsync", [False, True], ids=["normal", "fsync"])
def test_put_of_new_chunks(benchmark: Any, tmp_path: Path, fsync: bool) -> None:
    numbers = iter(range(10**9))
    with asyncio.Runner() as runner:
        store = FileStore(tmp_path / "objects", fsync=fsync)
        runner.run(store.open())

        async def together() -> None:
            keys = [f"sessions/m1/chunks/{next(numbers):08d}.pcm" for _ in range(TOGETHER)]
            await asyncio.gather(*(store.put(key, CHUNK, only_new=True) for key in keys))

        benchmark(lambda: runner.run(together()))
        benchmark.extra_info["puts"] = TOGETHER
        runner.run(store.close())
