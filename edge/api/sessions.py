"""``/v1/sessions``: which sessions there are, where one stands, and its removal."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated

import msgspec

from edge.api.http import NAME_PATTERN, ApiError, Call, NoQuery
from edge.api.times import iso
from edge.meeting.records import ROLES
from edge.meeting.removal import Removal
from edge.meeting.view import WINDOWS
from edge.session.names import name_problem
from edge.session.store.interface import MADE, SessionInfo, SessionStore
from edge.session.store.presence import decode_presence, present

MAX_LISTED = 1000
REMOVE_WITHIN_S = 2.0
SPEAKERS = {role + WINDOWS: role for role in ROLES}
"""Who speaks on tracks that are no speaker's own."""


def _name(description: str) -> msgspec.Meta:
    schema = {"type": "string", "pattern": NAME_PATTERN.replace("+", "*")}
    return msgspec.Meta(description=description, extra={"schema": schema})


class ListQuery(msgspec.Struct, frozen=True):
    """The query of a list of sessions."""

    prefix: Annotated[str, _name("the beginning of names")] = ""
    after: Annotated[str, _name("the `next` of the page before")] = ""
    limit: Annotated[
        int,
        msgspec.Meta(
            ge=1,
            description=f"a whole number from 1; more than {MAX_LISTED} is that",
            extra={"schema": {"anyOf": [{"type": "integer", "minimum": 1}, {"const": ""}]}},
        ),
    ] = 100


class ListedSession(msgspec.Struct, frozen=True):
    """One line of the list of sessions."""

    session_id: str
    created_at: str
    updated_at: str
    """When its log or one of its records changed last."""
    head: int
    """The offset of its last entry; 0: none yet."""


class SessionList(msgspec.Struct, frozen=True):
    """A page of the list of sessions, in the order of the bytes of their names."""

    sessions: list[ListedSession]
    next: str | None
    """``after`` of the next page; null when this is the last."""


class PresentConnection(msgspec.Struct, frozen=True):
    """A connection that is there now."""

    connection: str
    role: str
    speaker: str
    """The track it speaks on; empty for listeners."""
    since: str


class SessionState(msgspec.Struct, frozen=True):
    """Where one session stands."""

    session_id: str
    created_at: str
    updated_at: str
    epoch: str
    tail: int
    """The first offset that is kept."""
    head: int
    tracks: list[str]
    """Speakers that were ever heard."""
    connections: list[PresentConnection]


class SessionEndpoints:
    """Answers ``/v1/sessions`` for one worker."""

    def __init__(self, store: SessionStore, removal: Removal) -> None:
        """``removal`` sees to the objects of sessions that are deleted."""
        self._store = store
        self._removal = removal

    async def page(self, call: Call[ListQuery, None]) -> SessionList:
        """The sessions whose names begin with ``prefix``, a page at a time."""
        query = call.query
        limit = min(query.limit, MAX_LISTED)
        for name in filter(None, (query.prefix, query.after)):
            if problem := name_problem(name):
                raise ApiError(400, "bad_query", f"No session has such a name: {problem}")
        found: list[SessionInfo] = []
        if query.prefix and query.after < query.prefix:
            exact = await self._store.detail(query.prefix)
            found += [exact.info] if exact is not None else []
        after = max(query.after, query.prefix)
        found += await self._store.sessions(after, limit + 1 - len(found))
        matching = [info for info in found if info.name.startswith(query.prefix)]
        shown = matching[:limit]
        return SessionList(
            [
                ListedSession(info.name, iso(info.created_ms), iso(info.changed_ms), info.head)
                for info in shown
            ],
            shown[-1].name if len(matching) > limit else None,
        )

    async def get(self, call: Call[NoQuery, None]) -> SessionState:
        """Where a session stands and who is there; 404 when there is none."""
        detail = await self._store.detail(call.session)
        if detail is None:
            raise no_session()
        info, place = detail.info, detail.place
        connections = []
        for record in await present(self._store, call.session):
            if (presence := decode_presence(record.body)) is not None:
                since = iso(presence.since_unix_ms)
                connections.append(
                    PresentConnection(record.key, presence.role, presence.speaker, since)
                )
        return SessionState(
            session_id=info.name,
            created_at=iso(info.created_ms),
            updated_at=iso(info.changed_ms),
            epoch=place.epoch,
            tail=place.tail,
            head=place.head,
            tracks=sorted({SPEAKERS.get(name, name) for name in detail.tracks if name != MADE}),
            connections=connections,
        )

    async def delete(self, call: Call[NoQuery, None]) -> None:
        """Remove a session and all it holds; whoever is in it is sent away.

        404 when there is none.
        """
        if await self._store.head(call.session) is None:
            raise no_session()
        await self._removal.intend(call.session)
        if not await self._store.delete(call.session):
            raise no_session()
        # What is not gone by then, the worker that sweeps next removes.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REMOVE_WITHIN_S):
                await self._removal.remove(call.session)


def no_session() -> ApiError:
    """There is no session, or it was deleted."""
    return ApiError(404, "no_session", "There is no session of this name")
