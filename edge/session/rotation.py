"""Files that are appended to and replaced when they are full: the newest lines are kept.

``media.jsonl`` is written to, ``media.jsonl.1`` was full last, ``media.jsonl.2`` before that.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def append(path: Path, lines: bytes | bytearray, most_bytes: int, most_files: int) -> None:
    """Append whole lines; the folder is created when it is missing.

    A file that would become longer than ``most_bytes`` is set aside first, so that only a single
    line can make one longer. Several processes may append to one file. Raises ``OSError``; lines
    before those that could not be written are on the disk then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        start = 0
        while start < len(lines):
            size = path.stat().st_size if path.exists() else 0
            end = _end_of_what_fits(lines, start, most_bytes - size)
            if end == start and size:
                _set_aside(path, most_files)
                continue
            if end == start:
                end = lines.index(b"\n", start) + 1
            _write(path, lines[start:end])
            start = end
    finally:
        os.close(folder)


def _end_of_what_fits(lines: bytes | bytearray, start: int, room: int) -> int:
    if len(lines) - start <= room:
        return len(lines)
    return max(start, lines.rfind(b"\n", start, start + max(room, 0)) + 1)


def _set_aside(path: Path, most_files: int) -> None:
    if most_files == 1:
        path.unlink()
        return
    for number in range(most_files - 1, 1, -1):
        newer = aside(path, number - 1)
        if newer.exists():
            newer.replace(aside(path, number))
    path.replace(aside(path, 1))


def aside(path: Path, number: int) -> Path:
    """The name of a full file, 1 for the newest."""
    return path.with_name(f"{path.name}.{number}")


def _write(path: Path, lines: bytes | bytearray) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        start = os.fstat(file).st_size
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[os.write(file, rest) :]
        except OSError:
            os.ftruncate(file, start)  # half a line would spoil the recording
            raise
    finally:
        os.close(file)
