"""What the others of a session have just said, told to each tag's recognizer as context."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.session.live_track import LiveTrack

UPDATE_EVERY_S = 1.0
"""Recognizers are told at most so often, however many finals come."""
MOST_FRESH_LINES = 256
"""Lines that wait to be told; when there are more, the histories take them in earlier."""


class SharedContext:
    """Keeps for each track what the other tracks have said, the newest ``max_size`` characters.

    Histories lie on the tracks (``LiveTrack.others_said``); ``tracks`` lists those that run.
    """

    def __init__(self, max_size: int, tracks: Callable[[], Iterable[LiveTrack]]) -> None:
        self._max_size = max_size
        self._tracks = tracks
        self._fresh: list[tuple[LiveTrack, str]] = []
        self._changed: set[LiveTrack] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._told_s = float("-inf")

    def add(self, track: LiveTrack, speaker: str, text: str) -> None:
        """A final of ``track`` came; the other tracks are told of it within a second."""
        words = " ".join(text.split())
        if not words:
            return
        self._fresh.append((track, f"{speaker}: {words}\n"))
        if len(self._fresh) >= MOST_FRESH_LINES:
            self._take_in()
        if self._timer is None:
            loop = asyncio.get_running_loop()
            due_s = max(self._told_s + UPDATE_EVERY_S, loop.time())
            self._timer = loop.call_at(due_s, self._tell)

    def stop(self) -> None:
        """Tell nobody anything more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self) -> None:
        self._timer = None
        self._told_s = asyncio.get_running_loop().time()
        self._take_in()
        changed, self._changed = self._changed, set()
        for track in changed:
            if track.transcriber:
                track.transcriber.share(track.others_said)

    def _take_in(self) -> None:
        fresh, self._fresh = self._fresh, []
        speakers = {track for track, _ in fresh}
        everything = "".join(line for _, line in fresh)
        for track in self._tracks():
            lines = everything
            if track in speakers:
                lines = "".join(line for speaker, line in fresh if speaker is not track)
            if lines:
                track.others_said = self._newest(track.others_said + lines)
                self._changed.add(track)

    def _newest(self, history: str) -> str:
        """As much of the end as fits, from the start of a line on."""
        surplus = len(history) - self._max_size
        if surplus <= 0:
            return history
        return history[history.find("\n", surplus - 1) + 1 :]
