"""The objects of sessions that are deleted go, too, whether or not the object store is there.

Comes in: names of sessions that are about to be deleted, or were. Goes out: nothing is left of
their objects. What is to go is written down first, in a place that all workers know.
"""

from __future__ import annotations

import contextlib

from edge.errors import Conflict, ObjectError, StoreError
from edge.logs import Repeats, get_logger
from edge.meeting.keys import session_prefix
from edge.objects.interface import ObjectStore
from edge.session.store.interface import SessionStore, now_ms, shared_scope

SCOPE = shared_scope("removal")
FAMILY = "session"
AGAIN_AFTER_MS = 60_000
"""A chunk that was being stored when its session was deleted is there by then."""

_log = get_logger("edge.meeting.removal")


class Removal:
    """One worker's; holds no state of its own."""

    def __init__(
        self, store: SessionStore, objects: ObjectStore, *, again_after_ms: int = AGAIN_AFTER_MS
    ) -> None:
        self._store = store
        self._objects = objects
        self._again_after_ms = again_after_ms
        self._repeats = Repeats(_log)

    async def intend(self, session: str) -> None:
        """The session is about to be deleted, or was: its objects are to go.

        If it is still there a minute later, they stay.
        """
        with contextlib.suppress(Conflict):
            await self._store.put(SCOPE, FAMILY, session, str(now_ms()).encode(), 0)

    async def remove(self, session: str) -> None:
        """Remove the objects of a session that was deleted; later, if the store is away."""
        try:
            await self._objects.remove_all(session_prefix(session))
        except ObjectError as error:
            self._repeats.note("objects are removed later", reason=str(error))

    async def sweep(self) -> None:
        """Remove what is left of sessions that were deleted a while ago."""
        for record in await self._store.records(SCOPE, FAMILY):
            if now_ms() - int(record.body) < self._again_after_ms:
                continue
            try:
                if await self._store.head(record.key) is None:
                    await self._objects.remove_all(session_prefix(record.key))
                with contextlib.suppress(Conflict):
                    await self._store.drop(SCOPE, FAMILY, record.key, record.version)
            except (ObjectError, StoreError) as error:
                self._repeats.note("objects are removed later", reason=str(error))
        self._repeats.summarize()
