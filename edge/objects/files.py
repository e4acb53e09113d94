"""Objects as files below a folder of the local disk.

Comes in: bodies and keys. Goes out: files that are whole or not there: a body is written beside its
place and moved to it, so that neither a crash nor a reader ever meets half of one. Types and
metadata of objects are not kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import heapq
import itertools
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from edge.errors import ObjectError, ObjectExists, ObjectMissing, ObjectsUnavailable
from edge.objects.interface import ObjectStore, check_key

THREADS = 4
DEADLINE_S = 10.0
MOST_NAME = 200
"""Characters of a file's name: file systems take 255 bytes. What is longer goes on in a folder."""
LEFT_S = 3600.0
"""A body that was not moved to its place for so long was left by a process that died."""
_GOES_ON = "+"
_NEW = ".new"
"""The folder in which bodies are written."""
_FULL = (errno.ENOSPC, errno.EDQUOT)

T = TypeVar("T")


class FileStore(ObjectStore):
    """Keys are paths below ``folder``; processes may share it."""

    def __init__(self, folder: Path, *, fsync: bool = False) -> None:
        """``fsync``: what is stored survives a loss of power, not only the death of a process."""
        self._folder = folder
        self._new = folder / _NEW
        self._fsync = fsync
        self._numbers = itertools.count()
        self._prefix = secrets.token_hex(6)
        self._threads: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        """Make the folder; raises ``ObjectError`` when it cannot be written."""
        self._threads = ThreadPoolExecutor(THREADS, "objects")
        try:
            await self._do(self._begin)
        except ObjectError:
            await self.close()
            raise

    async def close(self) -> None:
        """Finish what was begun."""
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(threads.shutdown)

    async def put(
        self,
        key: str,
        body: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] = {},
        only_new: bool = False,
    ) -> None:
        await self._do(lambda: self._put(key, body, only_new))

    async def get(self, key: str) -> bytes:
        return await self._do(lambda: self._get(key))

    async def find(self, prefix: str, after: str = "", limit: int = 1000) -> list[str]:
        return await self._do(lambda: list(itertools.islice(self._find(prefix, after), limit)))

    async def remove(self, keys: Sequence[str]) -> None:
        await self._do(lambda: self._remove(keys))

    async def _do(self, work: Callable[[], T]) -> T:
        """``work`` in a thread; raises ``ObjectsUnavailable`` for what the disk does not do."""
        if self._threads is None:
            raise ObjectsUnavailable("the object store is closed")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await loop.run_in_executor(self._threads, work)
        except ObjectError:
            raise
        except TimeoutError as error:
            raise ObjectsUnavailable(
                f"{self._folder} did not answer in {DEADLINE_S:g} s"
            ) from error
        except OSError as error:
            what = "is full" if error.errno in _FULL else f"cannot be used: {error.strerror}"
            raise ObjectsUnavailable(f"the folder of objects {self._folder} {what}") from error

    # In threads

    def _begin(self) -> None:
        self._new.mkdir(parents=True, exist_ok=True)
        for entry in os.scandir(self._new):
            with contextlib.suppress(FileNotFoundError):
                if entry.stat().st_mtime < time.time() - LEFT_S:
                    os.unlink(entry.path)

    def _put(self, key: str, body: bytes, only_new: bool) -> None:
        path = self._path(key)
        new = self._new / f"{self._prefix}-{next(self._numbers)}"
        try:
            with new.open("xb") as file:
                file.write(body)
                if self._fsync:
                    file.flush()
                    os.fsync(file.fileno())
            self._move(new, path, key, only_new)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        if self._fsync:
            self._sync_folders(path.parent)

    def _move(self, new: Path, path: Path, key: str, only_new: bool) -> None:
        while True:
            try:
                if only_new:
                    os.link(new, path)
                    new.unlink()
                else:
                    os.replace(new, path)
                return
            except FileExistsError as error:
                raise ObjectExists(key) from error
            except FileNotFoundError:
                # The folder is new, or a removal has just taken it away.
                path.parent.mkdir(parents=True, exist_ok=True)

    def _sync_folders(self, folder: Path) -> None:
        """The names are on the disk, too, up to the folder of all."""
        for each in (folder, *folder.parents):
            descriptor = os.open(each, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if each == self._folder:
                return

    def _get(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise ObjectMissing(key) from error

    def _find(self, prefix: str, after: str) -> Iterator[str]:
        # What begins with the prefix lies in its last whole folder.
        begin = prefix.rpartition("/")[0]
        folder = self._path(begin) if begin else self._folder
        return self._below(folder, f"{begin}/" if begin else "", prefix, after)

    def _below(self, folder: Path, at: str, prefix: str, after: str) -> Iterator[str]:
        """Keys of the files below a folder whose keys begin with ``at``."""
        try:
            entries = list(os.scandir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        named = []
        for entry in entries:
            if entry.path == str(self._new):
                continue
            end = "/" if entry.is_dir(follow_symlinks=False) else ""
            named.append((at + entry.name.removesuffix(_GOES_ON) + end, entry))
        named.sort(key=lambda each: each[0])
        for key, same in itertools.groupby(named, key=lambda each: each[0]):
            if not key.endswith("/"):
                if key.startswith(prefix) and key > after:
                    yield key
                continue
            # A folder, and another with what its name goes on with.
            begins = {entry: key for _, entry in same}
            for entry in begins:
                if entry.name.endswith(_GOES_ON):
                    begins[entry] = key[:-1]
            yield from heapq.merge(
                *(
                    self._below(Path(entry.path), begin, prefix, after)
                    for entry, begin in begins.items()
                    if _may_hold(begin, prefix, after)
                )
            )

    def _remove(self, keys: Sequence[str]) -> None:
        folders = set()
        for key in keys:
            path = self._path(key)
            with contextlib.suppress(NotADirectoryError):
                path.unlink(missing_ok=True)
            folders.add(path.parent)
        for folder in sorted(folders, key=lambda each: -len(each.parts)):
            for each in (folder, *folder.parents):
                if each == self._folder:
                    break
                try:
                    each.rmdir()
                except OSError:
                    break  # it holds others, or is gone

    def _path(self, key: str) -> Path:
        """The file of a key; no key leaves the folder."""
        check_key(key)
        parts = key.split("/")
        if parts[0] == _NEW:
            raise ObjectError(f"{key!r} is no key: bodies are written in {_NEW}")
        path = self._folder
        for name in parts:
            while len(name) > MOST_NAME:
                path /= name[:MOST_NAME] + _GOES_ON
                name = name[MOST_NAME:]
            path /= name
        return path


def _may_hold(at: str, prefix: str, after: str) -> bool:
    """Whether a folder may have keys that are looked for, when all of them begin with ``at``."""
    fits = at.startswith(prefix) or prefix.startswith(at)
    return fits and (at > after or after.startswith(at))
