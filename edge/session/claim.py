"""A client's hold on its tracks within a session, over all workers and nodes.

Whoever has the claim writes the tracks. A newer client of the same name, on whichever worker, asks
the holder to finish first (``drain``), so that nothing that was said is lost, and takes the claim
over; a holder that does not answer is cut off by the fences of its tracks.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Awaitable, Callable
from typing import Protocol

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from edge.errors import (
    Conflict,
    SessionDeleted,
    StaleFence,
    StoreBusy,
    StoreError,
    StoreUnavailable,
)
from edge.session.store import commands
from edge.session.store.interface import SessionStore, now_ms

HOLDERS = "holder"
DRAIN = "drain"
VACANT_S = 60.0
"""A place that was left is remembered for so long; longer than anybody waits for it."""
AT_ONCE_MS = 200
"""Connections that come so close to one another may be taken in another order."""
TIME_DIGITS = 12
DRAIN_WITHIN_S = 3.0
"""How long a holder may take to finish before its place is taken anyway."""


_AWAY = (StoreUnavailable, StoreBusy)
FIRST_PAUSE_S = 0.05
"""At most so long after the first failure."""


def retrying() -> AsyncRetrying:
    """Ask a store that is away again, for ever."""
    return AsyncRetrying(
        retry=retry_if_exception_type(_AWAY),
        wait=wait_random_exponential(multiplier=0.05, max=1.0),
        reraise=True,
    )


async def until_done(work: Callable[[], Awaitable[None]]) -> None:
    """Do ``work``, and again for as long as the store is away, which it seldom is.

    What keeps count of attempts costs more than most work that it would watch: it comes second.
    """
    try:
        await work()
        return
    except _AWAY:
        await asyncio.sleep(random.uniform(0.0, FIRST_PAUSE_S))
    async for attempt in retrying():
        with attempt:
            await work()


def is_newer(token: bytes, mine: bytes, *, for_sure: bool) -> bool:
    """Whether the holder of ``token`` came after me.

    Clocks of nodes differ: unless it is known ``for_sure``, much newer is not believed.
    """
    if token <= mine:
        return False
    return for_sure or int(token[:TIME_DIGITS], 16) - int(mine[:TIME_DIGITS], 16) <= AT_ONCE_MS


class Holder(Protocol):
    """A client's tracks, as other workers may speak to them."""

    def superseded(self) -> None:
        """A newer client has the tracks: close this one with 4009 and stop."""
        ...

    def deleted(self) -> None:
        """The session was deleted: close the client with 4004 and stop."""
        ...

    async def drain(self) -> None:
        """The same as ``superseded``, and return when all that was said is in the log."""
        ...

    async def command(self, op: str, body: bytes) -> bytes:
        """Do what a client of another worker asks; the answer, empty when it is done."""
        ...


class Nobody:
    """Holds what nobody holds any more."""

    def superseded(self) -> None:
        """There is nobody to be told."""

    def deleted(self) -> None:
        """There is nobody to be told."""

    async def drain(self) -> None:
        """All has been said."""

    async def command(self, op: str, body: bytes) -> bytes:
        """Nothing is done."""
        return b"nobody is there for it"


class Claim:
    """The hold on ``name`` in a session; made by ``Ledger.claim``.

    ``ready`` is set once the place is this client's, or lost.
    """

    def __init__(self, store: SessionStore, session: str, name: str, holder: Holder) -> None:
        self.session = session
        self.name = name
        self.holder = holder
        self.token = f"{now_ms():012x}{secrets.token_hex(6)}"
        """Tells claims apart; those of newer clients are greater."""
        self.ready = asyncio.Event()
        self.is_certain = False
        """Whether nobody can contest it."""
        self.is_lost = False
        """Whether the tracks are another's, or nobody's any more."""
        self.was_asked_for = False
        """Whether a newer client has asked for the place."""
        self._store = store
        self._version = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def answers_to(self) -> tuple[str, ...]:
        """Whom commands to its holder are addressed to: its token, and its name while it has it."""
        return (self.token,) if self.was_asked_for or self.is_lost else (self.token, self.name)

    def take(self) -> None:
        """Begin to take the place."""
        self._task = asyncio.get_running_loop().create_task(self._take())

    async def confirm(self) -> None:
        """Wait until the place is this client's; raises ``StaleFence`` when it is not any more."""
        await self.ready.wait()
        if self.is_certain:
            return
        if not self.is_lost:
            record = await self._store.get(self.session, HOLDERS, self.name)
            if record is None:
                # A store that lost its history lost the claims with it.
                await self._take()
            else:
                self.is_lost = record.body != self.token.encode()
        if self.is_lost:
            raise StaleFence(self.session, self.name, 0, 0)

    async def look(self) -> None:
        """Something of the session has changed: tell the holder if the session was deleted."""
        if self.ready.is_set() and not self.is_lost:
            # A store that lost its history has no such session either: that one is made again.
            await self._take()

    async def release(self) -> None:
        """Leave the place, if it is still this client's."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.is_lost = True
        self.ready.set()
        # The holder has this claim: together they would wait for the garbage collector.
        self.holder = Nobody()
        if self._version:
            with contextlib.suppress(StoreError):
                # Not dropped: versions would begin anew, and who waits for this one take another's.
                await self._store.put(
                    self.session, HOLDERS, self.name, b"", self._version, VACANT_S
                )

    async def _take(self) -> None:
        try:
            async for attempt in retrying():
                with attempt:
                    # Who finds this claim tells its holder: that must not be missed.
                    await self._store.listening(self.session)
                    await self._put()
                    await self._cut_off()
        except SessionDeleted:
            self.is_lost = True
            self.holder.deleted()
        finally:
            self.ready.set()

    async def _cut_off(self) -> None:
        """Open the tracks of this name, so that a former holder that is still alive is stale.

        What it had not stored by now it never will: what the log covers is known from here on.
        """
        if self.is_lost or (found := await self._store.detail(self.session)) is None:
            return
        for track in found.tracks:
            if track == self.name or track.startswith(f"{self.name}/"):
                await self._store.open_track(self.session, track)

    async def _put(self) -> None:
        version = 0
        mine = self.token.encode()
        found = b""
        while True:
            try:
                self._version = await self._store.put(
                    self.session, HOLDERS, self.name, mine, version
                )
                return
            except Conflict as conflict:
                version = conflict.version
                if conflict.body == mine:
                    self._version = version
                    return
                if is_newer(conflict.body, mine, for_sure=found not in (b"", conflict.body)):
                    # Two came at once, and the newer was quicker.
                    self.is_lost = True
                    self.holder.superseded()
                    return
                if conflict.body:
                    found = conflict.body
                    await self._drain(conflict.body)

    async def _drain(self, token: bytes) -> None:
        """Ask the holder to finish, and wait for that; it may be long dead."""
        # Asked of the holder's token: several workers may have claims of this name just now.
        holder = token.decode()
        asked = commands.Command(f"{DRAIN} {self.token} {holder}", holder, DRAIN, token)
        await commands.send(self._store, self.session, asked, DRAIN_WITHIN_S)


async def is_held(store: SessionStore, session: str, name: str) -> bool:
    """Whether somebody has this place, or died with it."""
    record = await store.get(session, HOLDERS, name)
    return record is not None and record.body != b""
