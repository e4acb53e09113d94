"""Recordings of what clients sent and what was made of it, for ``edgescribe replay``.

Off by default. Lines are written in batches by a thread; when the disk cannot keep up or is full,
lines are dropped and counted, never the audio.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec

from edge.logs import get_logger
from edge.option import option
from edge.session.names import safe_name
from edge.session.rotation import append

_log = get_logger("edge.session.dump")
_encode = msgspec.json.Encoder().encode
_FLUSH_S = 0.2
_RETRY_S = 5.0
"""How long a disk that takes nothing is left alone."""
_MAX_NAME = 200
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""Errors that every file would meet."""


class DumpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is recorded, and where."""

    dump_websocket_messages: Annotated[
        bool, option("Record what clients send", env="DUMP_WEBSOCKET_MESSAGES")
    ] = False
    """To ``<folder>/<session>/media.jsonl``; it holds people's voices."""
    dump_transcripts: Annotated[bool, option("Record finals", env="DUMP_TRANSCRIPTS")] = False
    """To ``<folder>/<session>/transcript.jsonl``."""
    dump_base_path: Annotated[
        str, option("Folder of recordings; empty = dumps in the data folder", env="DUMP_BASE_PATH")
    ] = ""
    """Created when the first line is written."""
    dump_file_bytes: Annotated[
        int, option("Size at which a recording goes on in another file", ge=65536)
    ] = 67_108_864
    """Full ones are called ``media.jsonl.1`` (the newest), ``media.jsonl.2`` and so on."""
    dump_files: Annotated[
        int, option("Files a recording may have; the oldest is deleted", ge=1, le=10_000)
    ] = 8
    """An hour of one speaker takes about 50 MB."""
    dump_buffer_bytes: Annotated[
        int, option("Recording lines that may wait for the disk", ge=65536)
    ] = 8_388_608
    """More are dropped and counted."""


class IncomingLine(msgspec.Struct, frozen=True):
    """One message of a client as recorded; ``timestamp`` is Unix milliseconds."""

    timestamp: int
    data: str
    direction: str = "incoming"


class TranscriptLine(msgspec.Struct, frozen=True):
    """One final as recorded; ``message`` is the result as clients get it."""

    timestamp: int
    message: msgspec.Raw


class DumpCounts(msgspec.Struct):
    """What a worker's recordings took and lost since it started."""

    written: int = 0
    """Lines on the disk."""
    dropped: int = 0
    """Lines lost to a full buffer or a failing disk."""


class Dumps:
    """A worker's recordings; ``start`` and ``stop`` own its writer task."""

    def __init__(self, settings: DumpSettings, data_dir: Path) -> None:
        base = settings.dump_base_path
        self._base = Path(base) if base else data_dir / "dumps"
        self.messages = settings.dump_websocket_messages
        self.transcripts = settings.dump_transcripts
        self.counts = DumpCounts()
        self._settings = settings
        self._waiting: dict[Path, bytearray] = {}
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._failing: set[int | None] = set()
        """Kinds of errors that were logged and are not over."""
        self._retry_s = 0.0

    def start(self) -> None:
        """Begin to write, if anything is to be recorded."""
        if self.messages or self.transcripts:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Write what waits and end."""
        if self._task is not None:
            self._stopping.set()
            await self._task
            self._task = None
            if self._failing:
                _log.warning("recordings are not complete", dropped=self.counts.dropped)

    def incoming(self, session_id: str | None, data: bytes) -> None:
        """Record a client's message; text that is not UTF-8 is recorded with replacements."""
        line = IncomingLine(time.time_ns() // 1_000_000, data.decode(errors="replace"))
        self._add(session_id, "media.jsonl", line)

    def final(self, session_id: str | None, message: bytes) -> None:
        """Record a final as it is sent."""
        line = TranscriptLine(time.time_ns() // 1_000_000, msgspec.Raw(message))
        self._add(session_id, "transcript.jsonl", line)

    def _add(self, session_id: str | None, name: str, line: IncomingLine | TranscriptLine) -> None:
        encoded = _encode(line) + b"\n"
        if self._bytes + len(encoded) > self._settings.dump_buffer_bytes:
            self.counts.dropped += 1
            return
        self._bytes += len(encoded)
        path = self._folder(session_id) / name
        self._waiting.setdefault(path, bytearray()).extend(encoded)

    def _folder(self, session_id: str | None) -> Path:
        if session_id is None:
            return self._base
        name = safe_name(session_id)
        if len(name) > _MAX_NAME or ".jsonl" in name:
            name = "~~" + hashlib.sha256(name.encode()).hexdigest()
        return self._base / name

    async def _run(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _FLUSH_S)
            if time.monotonic() >= self._retry_s:
                await self._flush()
        await self._flush()

    async def _flush(self) -> None:
        waiting, self._waiting = self._waiting, {}
        if not waiting:
            return
        failed = await asyncio.to_thread(self._write, waiting)
        self._bytes -= sum(map(len, waiting.values()))
        for path, lines in waiting.items():
            count = lines.count(b"\n")
            if path in failed:
                self.counts.dropped += count
            else:
                self.counts.written += count
        self._report(failed)

    def _write(self, waiting: dict[Path, bytearray]) -> dict[Path, OSError]:
        """Write the lines of each file; the errors of those that could not be written."""
        failed: dict[Path, OSError] = {}
        for path, lines in waiting.items():
            try:
                append(path, lines, self._settings.dump_file_bytes, self._settings.dump_files)
            except OSError as error:
                failed[path] = error
        return failed

    def _report(self, failed: dict[Path, OSError]) -> None:
        """Log each kind of failure once, until it is over; let a full disk be for a while."""
        for path, error in failed.items():
            if error.errno in _DISK_ERRORS:
                self._retry_s = time.monotonic() + _RETRY_S
            if error.errno not in self._failing:
                self._failing.add(error.errno)
                _log.error("recording failed", path=str(path), error=error.strerror)
        if self._failing and not failed:
            self._failing.clear()
            _log.info("recordings are written again", dropped=self.counts.dropped)
