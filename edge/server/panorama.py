"""What the tracks of all workers do, put together by whichever worker is asked.

The one that is asked puts the time on the board; each of the others sees it at its next beat and
leaves a file in the run's folder. Nobody does anything while nobody asks.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge.api.tracks import TracksOfWorker
from edge.logs import Repeats, get_logger
from edge.server.board import WorkerBoard
from edge.session.overview import TrackView

WAIT_S = 2.0
"""For the other workers; a beat is a quarter of a second."""
LOOK_S = 0.05

_log = get_logger("edge.server.panorama")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[TrackView]).decode


class Panorama:
    """One worker's part; all methods are for its event loop's thread."""

    def __init__(
        self,
        board: WorkerBoard,
        worker: int,
        folder: Path,
        look: Callable[[], list[TrackView]],
    ) -> None:
        """``look`` gives this worker's tracks."""
        self._board = board
        self._worker = worker
        self._folder = folder
        self._look = look
        self._asking = asyncio.Lock()
        self._writing: asyncio.Task[None] | None = None
        self._faults = Repeats(_log)

    def beat(self) -> None:
        """Leave what this worker's tracks do, if somebody has asked since the last time."""
        asked_s = self._board.asked_s()
        if asked_s <= self._board.told_s(self._worker):
            return
        if self._writing is None or self._writing.done():
            loop = asyncio.get_running_loop()
            self._writing = loop.create_task(self._tell(self._look(), asked_s))

    async def collect(self) -> list[TracksOfWorker]:
        """Every living worker's tracks; None of one that did not tell them in time."""
        async with self._asking:
            asked_s = time.monotonic()
            self._board.ask(self._worker, asked_s)
            until_s = asked_s + WAIT_S
            while True:
                self.beat()
                waiting = [each for each in self._board.living() if not self._has(each, asked_s)]
                if not waiting or time.monotonic() > until_s:
                    break
                await asyncio.sleep(LOOK_S)
            return await asyncio.to_thread(self._read, asked_s)

    async def stop(self) -> None:
        """Finish what is being written."""
        if self._writing:
            await self._writing

    async def _tell(self, views: list[TrackView], asked_s: float) -> None:
        try:
            await asyncio.to_thread(self._write, views)
        except OSError as error:
            self._faults.note("what tracks do could not be told", reason=str(error))
        else:
            self._board.tell(self._worker, asked_s)

    def _write(self, views: list[TrackView]) -> None:
        path = self._path(self._worker)
        fresh = path.with_suffix(".new")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(_encode(views))
        fresh.replace(path)

    def _read(self, asked_s: float) -> list[TracksOfWorker]:
        found = []
        for worker in self._board.living():
            tracks = None
            if self._has(worker, asked_s):
                tracks = _decode(self._path(worker).read_bytes())
            found.append(TracksOfWorker(worker=worker, tracks=tracks))
        return found

    def _has(self, worker: int, asked_s: float) -> bool:
        return self._board.told_s(worker) >= asked_s

    def _path(self, worker: int) -> Path:
        return self._folder / f"tracks-{worker}.json"
