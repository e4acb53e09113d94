"""``jsonl``: one line of JSON a message in a file, rotated by size; several processes may share it.

``PATH`` is written, ``PATH.1`` is the one before it and ``PATH.<keep>`` the oldest; ``PATH.lock``
is held while lines are written or files change their names.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dispatch.sinks.lines import LineSink

MODE = 0o600
"""What was said in meetings is for the owner."""


class JsonlSink(LineSink):
    """Appends whole lines: what a full disk cuts off is taken back and tried again later."""

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int = 100 << 20,
        keep: int = 10,
        is_synced: bool = False,
        deadline_s: float = 10.0,
    ) -> None:
        """``keep`` files are kept beside the current one; ``is_synced``: ``fsync`` each write."""
        super().__init__(deadline_s)
        if max_bytes < 1 or keep < 1:
            raise ValueError("files are rotated after at least 1 byte, and at least 1 is kept")
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._is_synced = is_synced
        self._lock: int | None = None
        self._file: int | None = None

    def release(self) -> None:
        self._leave()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _leave(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def write(self, lines: Sequence[bytes]) -> int:
        if self._lock is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT, MODE)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            return self._write(lines)
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _write(self, lines: Sequence[bytes]) -> int:
        done = 0
        try:
            while done < len(lines):
                file = self._current()
                size = os.fstat(file).st_size
                count = self._fitting(lines[done:], size)
                if count:
                    self._append(file, size, b"".join(lines[done : done + count]))
                    done += count
                else:
                    self._rotate()
        except OSError:
            if not done:
                raise
        return done

    def _fitting(self, lines: Sequence[bytes], size: int) -> int:
        """How many lines the file has room for; an empty one takes any first line."""
        count = 0
        for line in lines:
            size += len(line)
            if size > self._max_bytes and size > len(line):
                break
            count += 1
        return count

    def _current(self) -> int:
        """The open file, if no other process has renamed it."""
        if self._file is not None:
            try:
                ours, named = os.fstat(self._file), os.stat(self._path)
            except FileNotFoundError:
                named = None
            if named is not None and ours.st_ino == named.st_ino and ours.st_dev == named.st_dev:
                return self._file
            self._leave()
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, MODE)
        self._mend(self._file)
        return self._file

    def _mend(self, file: int) -> None:
        """Take back a last line that a process or a machine did not live to end."""
        end = os.fstat(file).st_size
        while end:
            start = max(end - 65536, 0)
            found = os.pread(file, end - start, start).rfind(b"\n")
            if found >= 0 or not start:
                os.ftruncate(file, start + found + 1)
                return
            end = start

    def _append(self, file: int, size: int, data: bytes) -> None:
        try:
            written = 0
            while written < len(data):
                written += os.write(file, data[written:])
            if self._is_synced:
                os.fsync(file)
        except OSError:
            with suppress(OSError):
                os.ftruncate(file, size)
            self._leave()
            raise

    def _rotate(self) -> None:
        for number in range(self._keep, 0, -1):
            older = Path(f"{self._path}.{number}")
            newer = Path(f"{self._path}.{number - 1}") if number > 1 else self._path
            if newer.exists():
                newer.replace(older)
        if self._is_synced:
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
