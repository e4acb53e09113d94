"""When the tracks of a worker play what is due: soon, in turn, and late audio not at all.

Decoding is nearly all that a worker does. It is done in slices between turns of the event loop, so
that a transcript never waits for more than one of them. When there is more to decode than there is
time for, tracks wait longer and longer: one that has waited too long passes over the oldest audio
that it owes its recognizer. So a worker that is asked too much loses audio, evenly and counted, but
does not fall behind. A sender that is ahead of real time, with a recording say, loses nothing: its
audio is played at once, so that it is read no faster than it is decoded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

SLICE_S = 0.0005
"""Tracks play for about so long at a time, one batch at least."""
LATE_S = 0.2
"""A track that waited so long to play sheds audio."""
KEPT_MS = 100.0
"""What is left of the audio that a late track owes: the newest."""


class Audio(Protocol):
    """What a track of ``edge.audio`` does here."""

    def play_due(self) -> None: ...

    def shed(self, keep_ms: float) -> None: ...


class Playable(Protocol):
    """A track, which is told nothing when it is in time."""

    @property
    def audio(self) -> Audio: ...

    @property
    def is_ahead(self) -> Callable[[float], bool]:
        """Whether more audio has come than time has passed."""
        ...


class Playout:
    """The queue of one worker. A track that raises is reported; the others never notice."""

    def __init__(
        self,
        on_error: Callable[[object, BaseException], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_error = on_error
        self._clock = clock
        self._waiting: dict[Playable, float] = {}
        """Tracks and since when they wait, the oldest first."""

    def add(self, track: Playable) -> None:
        """Let a track play when its turn comes, or at once if it is ahead; it may wait already."""
        now_s = self._clock()
        if track.is_ahead(now_s):
            self._play(track)
            return
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._play_some)
        self._waiting.setdefault(track, now_s)

    def stop(self) -> None:
        """Let all tracks go."""
        self._waiting.clear()

    def _play_some(self) -> None:
        waiting, clock = self._waiting, self._clock
        now_s = clock()
        ends_s = now_s + SLICE_S
        while waiting and now_s < ends_s:
            track = next(iter(waiting))
            try:
                if now_s - waiting.pop(track) > LATE_S:
                    track.audio.shed(KEPT_MS)
                track.audio.play_due()
            except Exception as error:
                self._on_error(track, error)
            now_s = clock()
        if waiting:
            asyncio.get_running_loop().call_soon(self._play_some)

    def _play(self, track: Playable) -> None:
        try:
            track.audio.play_due()
        except Exception as error:
            self._on_error(track, error)
