"""The end of a meeting: what was said is drained, then result.json is written, once.

Comes in: requests to finalize. Goes out: result.json in the object store. What is to be done is
written down first, so that one whose worker dies is finished by a later request or by another
worker's ``sweep``. Nothing stops a client that goes on: what it says belongs to the next result.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
from msgspec import Raw, Struct

from edge import tracing
from edge.errors import Conflict, ObjectError, ObjectMissing, StoreBusy, StoreError
from edge.logs import Repeats, get_logger
from edge.meeting import lease
from edge.meeting.book import INGEST, Book, Leaf
from edge.meeting.flush import FLUSH_WITHIN_S, flush
from edge.meeting.keys import result_key
from edge.meeting.records import ROLES, iso
from edge.meeting.result import written
from edge.meeting.settings import MeetingSettings
from edge.meeting.status import Standings
from edge.meeting.windows import Windows
from edge.objects.interface import ObjectStore
from edge.session.store.interface import Record, SessionStore, shared_scope

SCOPE = shared_scope("finalize")
PENDING = "pending"
"""Sessions that are to be finalized, by name, in a place that all workers know."""
KEY = "finalize"
LEASE_S = 30.0
"""Longer than any step takes; one that died is followed after so long."""
PATIENCE_S = 45.0
"""How long a request waits for another one of the session."""
LOOK_S = 0.1

_log = get_logger("edge.meeting.finalize")


class Finalized(Struct, frozen=True, kw_only=True):
    """The answer: where the result is, and since when."""

    session_id: str
    result_key: str
    event_count: int
    finalized_at: str


class Finalization(Struct, frozen=True, kw_only=True):
    """The last result of a session; ``digest`` tells whether another would say the same."""

    event_count: int = 0
    finalized_at: str = ""
    digest: str = ""


class Pending(Struct, frozen=True):
    """What a finalize was asked with."""

    metadata: Raw


FINALIZATION = Leaf("finalization", Finalization)
EMPTY = Raw(b"{}")
_encode = msgspec.json.Encoder().encode
_pending = msgspec.json.Decoder(Pending).decode


class Finalizer:
    """One worker's; holds no state of its own."""

    def __init__(
        self,
        store: SessionStore,
        objects: ObjectStore,
        standings: Standings,
        windows: Windows,
        settings: MeetingSettings,
        *,
        settled: Callable[[str], Awaitable[None]] | None = None,
        lease_s: float = LEASE_S,
    ) -> None:
        """``settled`` returns, in time, when it is known who said what windows heard."""
        self._store = store
        self._objects = objects
        self._book = Book(store)
        self._standings = standings
        self._windows = windows
        self._settings = settings
        self._settled = settled
        self._lease_s = lease_s
        self._repeats = Repeats(_log)

    async def finalize(self, session: str, metadata: Raw = EMPTY) -> Finalized:
        """Drain what is being said, at most 10 s, and write result.json.

        ``metadata`` is any JSON, and goes into it. With nothing new since the last time the answer
        is that of the last time, and nothing is written. Raises what the session store and the
        object store raise; it is finished all the same once both are there.
        """
        with tracing.span("finalize", session=session) as span:
            await self._store.ensure(session)
            async with self._turn(session) as held:
                version = await self._intend(session, metadata)
                answer = await self._complete(session, metadata, held)
                await self._settle(session, version)
            span.note(events=answer.event_count)
        return answer

    async def result(self, session: str) -> bytes | None:
        """The last result.json; None when there is none."""
        try:
            return await self._objects.get(result_key(session))
        except ObjectMissing:
            return None

    async def sweep(self) -> None:
        """Finish what workers that died had begun, or an object store that was away held up."""
        for record in await self._store.records(SCOPE, PENDING):
            try:
                await self._resume(record)
            except (StoreError, ObjectError) as error:
                self._repeats.note("a meeting has yet to be finalized", reason=str(error))
        self._repeats.summarize()

    async def _resume(self, pending: Record) -> None:
        session = pending.key
        if await self._store.head(session) is None:
            await self._settle(session, pending.version)
            return
        held = await lease.take(self._store, session, KEY, self._lease_s)
        if held is None:
            return
        try:
            # Another may have finished it since it was seen, and with other metadata.
            if (found := await self._store.get(SCOPE, PENDING, session)) is not None:
                await self._complete(session, _pending(found.body).metadata, held)
                await self._settle(session, found.version)
        finally:
            await held.release()

    @contextlib.asynccontextmanager
    async def _turn(self, session: str) -> AsyncIterator[lease.Lease]:
        """Wait until nobody else finalizes this session."""
        give_up_s = time.monotonic() + PATIENCE_S
        while (held := await lease.take(self._store, session, KEY, self._lease_s)) is None:
            if time.monotonic() > give_up_s:
                raise StoreBusy("this session is being finalized; ask again in a minute")
            await asyncio.sleep(LOOK_S * random.uniform(1, 2))
        try:
            yield held
        finally:
            await held.release()

    async def _intend(self, session: str, metadata: Raw) -> int:
        """Write down what is to be done, in the place of what was before."""
        body, version = _encode(Pending(metadata)), 0
        while True:
            try:
                return await self._store.put(SCOPE, PENDING, session, body, version)
            except Conflict as conflict:
                version = conflict.version

    async def _settle(self, session: str, version: int) -> None:
        """It is done."""
        with contextlib.suppress(Conflict):
            await self._store.drop(SCOPE, PENDING, session, version)

    async def _complete(self, session: str, metadata: Raw, held: lease.Lease) -> Finalized:
        await self._drain(session)
        key = result_key(session)
        last = await self._book.read(session, FINALIZATION)
        finalized_at = iso()
        result = await written(await self._standings.of(session), metadata, finalized_at)
        if result.digest != last.digest:
            if not await held.renew():
                raise StoreBusy("another worker finalizes this session; ask again")
            await self._objects.put(key, result.body, content_type="application/json")
            last = Finalization(
                event_count=result.event_count, finalized_at=finalized_at, digest=result.digest
            )
            await self._book.change(session, FINALIZATION, lambda _: last)
        return Finalized(
            session_id=session,
            result_key=key,
            event_count=last.event_count,
            finalized_at=last.finalized_at,
        )

    async def _drain(self, session: str) -> None:
        """See to it that the log has all that was said before now, as far as time allows."""
        if self._settings.asr_realtime_enabled:
            await flush(self._store, session, ROLES)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_WITHIN_S):
                for role in ROLES:
                    if (await self._book.read(session, INGEST[role])).last_seq:
                        await self._windows.run(session, role)
        if self._settled is not None:
            await self._settled(session)
