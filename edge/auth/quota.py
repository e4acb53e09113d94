"""How much each key uses in this worker, and of a day's audio in all workers.

Counting is per key name. Audio is the sum of what tracks carry; it is added up in the session
store, ten seconds late at most, so that a day's limit holds on every node.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol

from edge.auth.grants import Allowance, Grant
from edge.errors import Conflict, StoreError
from edge.logs import Repeats, get_logger
from edge.session.store.interface import SessionStore, shared_scope
from edge.transport.interface import Socket

SCOPE = shared_scope("quota")
FAMILY = "audio"
SHARE_EVERY_S = 10.0
LOOK_EVERY_S = 1.0
KEPT_S = 3 * 86400.0
BURST_S = 2.0
MOST_METERS = 10_000
UNAUTHORIZED = 4401

_log = get_logger("edge.auth.quota")


class Measured(Protocol):
    """A track whose audio counts."""

    @property
    def heard_ms(self) -> float:
        """Audio that it has taken."""
        ...

    def stop(self, message: str) -> None:
        """Take no more, and tell its client why."""
        ...


class Meter:
    """What one key uses here; made by ``Quotas``."""

    def __init__(self, grant: Grant, allowance: Allowance) -> None:
        self.name = grant.name
        self.allowance = allowance
        self._audio_s = grant.audio_s
        """What a token allows in this worker, whatever the day."""
        self._expires_unix_s = grant.expires_unix_s or 0.0
        self._sockets: dict[Socket, str | None] = {}
        """Open connections, each with the stored key that it was opened with."""
        self.shared_ms = 0.0
        """The day's audio of all workers, as it was last added up."""
        self.day = ""
        self._tracks: set[Measured] = set()
        self._ended_ms = 0.0
        self._told_ms = 0.0
        self._tokens = BURST_S * allowance.requests_per_s
        self._spent_s = time.monotonic()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._sockets)

    def join(self, socket: Socket, key_id: str | None) -> None:
        """A connection is open, by a stored key or by another credential."""
        self._sockets[socket] = key_id

    def leave(self, socket: Socket) -> None:
        """A connection is over."""
        self._sockets.pop(socket, None)

    def dismiss(self, is_good: Callable[[str], bool]) -> None:
        """Close the connections of keys that are not good any more."""
        judged = {key: is_good(key) for key in set(self._sockets.values()) if key is not None}
        if all(judged.values()):
            return
        for socket, key in tuple(self._sockets.items()):
            if key is not None and not judged[key]:
                socket.close(UNAUTHORIZED, "This key is not good any more")

    @property
    def is_idle(self) -> bool:
        """Whether nothing of the key is open, and nothing has to be remembered of it."""
        if self._sockets or self._tracks:
            return False
        if self._audio_s is not None and time.time() < self._expires_unix_s:
            return False
        return not self.allowance.audio_s_per_day or self.untold_ms < 1.0

    @property
    def _here_ms(self) -> float:
        return self._ended_ms + sum(track.heard_ms for track in self._tracks)

    @property
    def untold_ms(self) -> float:
        """Audio that is not in ``shared_ms`` yet."""
        return self._here_ms - self._told_ms

    @property
    def used_ms(self) -> float:
        """The day's audio, as far as is known here."""
        return self.shared_ms + self.untold_ms

    def told(self, told_ms: float, shared_ms: float) -> None:
        """So much more has been added up."""
        self._told_ms += told_ms
        self.shared_ms = shared_ms

    def request(self, now_s: float) -> bool:
        """Whether one more request may be answered."""
        rate = self.allowance.requests_per_s
        if not rate:
            return True
        self._tokens = min(BURST_S * rate, self._tokens + (now_s - self._spent_s) * rate)
        self._spent_s = now_s
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def is_full(self) -> bool:
        """Whether it has as many connections as it may."""
        most = self.allowance.connections
        return bool(most) and self.connections >= most

    def problem(self) -> str | None:
        """Why no further track may be opened."""
        allowed = self.allowance
        if allowed.tracks and len(self._tracks) >= allowed.tracks:
            return f"This key may have {allowed.tracks} tracks open"
        return self._audio_problem()

    def open(self, track: Measured) -> None:
        """A track's audio counts from now on."""
        self._tracks.add(track)

    def close(self, track: Measured) -> None:
        """A track has ended."""
        if track in self._tracks:
            self._tracks.discard(track)
            self._ended_ms += track.heard_ms

    def enforce(self) -> None:
        """End tracks that have no audio left."""
        if problem := self._audio_problem():
            for track in tuple(self._tracks):
                track.stop(problem)

    def _audio_problem(self) -> str | None:
        if self._audio_s is not None and self._here_ms >= 1000 * self._audio_s:
            return f"This token's {self._audio_s:g} seconds of audio are used up"
        limit_s = self.allowance.audio_s_per_day
        if limit_s and self.used_ms >= 1000 * limit_s:
            return f"This key's {limit_s} seconds of audio for today are used up"
        return None


class Quotas:
    """All meters of a worker, and the task that adds them up."""

    def __init__(
        self, store: SessionStore, usual: Allowance, is_good: Callable[[str], bool]
    ) -> None:
        """``is_good``: whether a stored key still is."""
        self._is_good = is_good
        self._store = store
        self._usual = usual
        self._meters: dict[str, Meter] = {}
        self._repeats = Repeats(_log)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to add up."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Add up a last time, and end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._share()

    def meter(self, grant: Grant) -> Meter:
        """The meter of a key; its own limits, as they are now, win over those of all."""
        key = grant.meter or grant.name
        meter = self._meters.get(key)
        if meter is None:
            if len(self._meters) >= MOST_METERS:
                self._meters = {
                    name: each for name, each in self._meters.items() if not each.is_idle
                }
            meter = self._meters[key] = Meter(grant, self._limits(grant))
        meter.allowance = self._limits(grant)
        return meter

    def _limits(self, grant: Grant) -> Allowance:
        own, usual = grant.allowance, self._usual
        return Allowance(
            connections=own.connections or usual.connections,
            tracks=own.tracks or usual.tracks,
            requests_per_s=own.requests_per_s or usual.requests_per_s,
            audio_s_per_day=own.audio_s_per_day or usual.audio_s_per_day,
        )

    async def _run(self) -> None:
        share_at_s = 0.0
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                if time.monotonic() >= share_at_s:
                    share_at_s = time.monotonic() + SHARE_EVERY_S
                    await self._share()
                for meter in self._meters.values():
                    meter.enforce()
                    meter.dismiss(self._is_good)
            except Exception as error:
                self._repeats.note("keys are not looked at", "error", exc_info=error)

    async def _share(self) -> None:
        day = datetime.now(UTC).date().isoformat()
        for meter in tuple(self._meters.values()):
            if not meter.allowance.audio_s_per_day:
                continue
            if meter.day != day:
                meter.day, meter.shared_ms = day, 0.0
            try:
                await self._add(meter, f"{meter.name} {day}")
            except StoreError as error:
                self._repeats.note("audio cannot be added up", reason=str(error))
                return

    async def _add(self, meter: Meter, key: str) -> None:
        while True:
            record = await self._store.get(SCOPE, FAMILY, key)
            known_ms = float(record.body) if record else 0.0
            more_ms = meter.untold_ms
            if more_ms < 1.0:
                meter.told(0.0, known_ms)
                return
            total = str(round(known_ms + more_ms)).encode()
            version = record.version if record else 0
            try:
                await self._store.put(SCOPE, FAMILY, key, total, version, KEPT_S)
            except Conflict:
                continue
            meter.told(more_ms, known_ms + more_ms)
            return
