"""Who is in a session, over all workers: one record a connection, and joins and leaves in the log.

Speakers join and leave in the log, once each however many connections they use: a record beside the
log says who has joined, and only who changes it writes the entry. A speaker whose last connection
is gone has 5 s to come back. Listeners are seen in the records only: hundreds of them joining would
be told to hundreds.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

from edge.errors import Conflict, SessionDeleted, StoreError
from edge.logs import Repeats, get_logger
from edge.session.store.interface import SessionStore
from edge.session.store.presence import (
    ALIVE_S,
    Presence,
    appear,
    decode_presence,
    encode_presence,
    leave,
    present,
)

JOINED = "joined"
LEAVE_AFTER_S = 5.0
BEAT_S = ALIVE_S / 3
SWEEP_BEATS = 3
GONE_S = 0.001
"""A speaker's record is replaced by one that expires at once: whoever does it notes the leave."""

_log = get_logger("edge.ingest.session_presence")

Note = Callable[[str, str, bool], None]
"""Writes a join (True) or leave of a session's speaker into the log; never blocks."""


class Attendance:
    """The connections of one worker, as other workers see them."""

    def __init__(self, store: SessionStore, note: Note) -> None:
        self._store = store
        self._note = note
        self._here: dict[tuple[str, str], bytes] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._beating: asyncio.Task[None] | None = None
        self._repeats = Repeats(_log)

    def enter(self, session: str, connection: str, presence: Presence) -> None:
        """A connection is welcome; nobody waits for the store to know."""
        self._here[session, connection] = body = encode_presence(presence)
        if self._beating is None:
            self._beating = asyncio.get_running_loop().create_task(self._beat())
        self._spawn(self._arrive(session, connection, body, presence.speaker))

    def leave(self, session: str, connection: str, presence: Presence, *, at_once: bool) -> None:
        """A connection is over; ``at_once``: its client said that it goes."""
        if self._here.pop((session, connection), None) is not None:
            self._spawn(self._depart(session, connection, presence.speaker, at_once))

    async def stop(self) -> None:
        """Leave the rest to expire: clients come back by way of another worker."""
        tasks = [*self._tasks, *([self._beating] if self._beating else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._repeats.summarize()

    def _spawn(self, work: object) -> None:
        assert asyncio.iscoroutine(work)
        task = asyncio.get_running_loop().create_task(self._guard(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, work: object) -> None:
        assert asyncio.iscoroutine(work)
        try:
            await work
        except SessionDeleted:
            pass
        except StoreError as error:
            self._repeats.note("presence is not up to date", reason=str(error))

    async def _arrive(self, session: str, connection: str, body: bytes, speaker: str) -> None:
        await appear(self._store, session, connection, body)
        if speaker:
            with contextlib.suppress(Conflict):
                await self._store.put(session, JOINED, speaker, b"", 0)
                self._note(session, speaker, True)

    async def _depart(self, session: str, connection: str, speaker: str, at_once: bool) -> None:
        if speaker and not at_once:
            await asyncio.sleep(LEAVE_AFTER_S)
        await leave(self._store, session, connection)
        if speaker:
            await self._sweep(session)

    async def _sweep(self, session: str) -> None:
        """Note the leaves of speakers that no connection is alive of."""
        joined = await self._store.records(session, JOINED)
        if not joined:
            return
        seen = [decode_presence(record.body) for record in await present(self._store, session)]
        speakers = {presence.speaker for presence in seen if presence is not None}
        for record in joined:
            if record.key not in speakers:
                with contextlib.suppress(Conflict):
                    await self._store.put(session, JOINED, record.key, b"", record.version, GONE_S)
                    self._note(session, record.key, False)

    async def _beat(self) -> None:
        beats = 0
        while True:
            await asyncio.sleep(BEAT_S * random.uniform(0.8, 1.0))
            beats += 1
            for (session, connection), body in tuple(self._here.items()):
                if (session, connection) in self._here:
                    await self._guard(appear(self._store, session, connection, body))
            if beats % SWEEP_BEATS == 0:
                for session in {session for session, _ in self._here}:
                    await self._guard(self._sweep(session))
