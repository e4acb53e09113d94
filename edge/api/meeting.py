"""What is known of a meeting: its configuration, state, events and utterances."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET

from edge.api.http import ApiError, Call, NoQuery
from edge.api.parameters import ROLE, choice, count
from edge.meeting.book import PEOPLE, Book
from edge.meeting.people import Told, tell
from edge.meeting.records import (
    ROLES,
    Captures,
    Merged,
    Person,
    Role,
    SpeakerSaid,
    Utterance,
    Value,
)
from edge.meeting.status import (
    Asrs,
    AsrStatus,
    Ingests,
    IngestStatus,
    SpeakerState,
    Standings,
)
from edge.meeting.view import Views

MOST_EVENTS = 2000
MOST_UTTERANCES = 1000

ViewName = Literal["raw", "merged"]


class EventsQuery(msgspec.Struct, frozen=True):
    """The query of events."""

    stream_role: Annotated[Role | None, ROLE] = None
    limit: Annotated[int, count(100, MOST_EVENTS)] = 100


class UtterancesQuery(msgspec.Struct, frozen=True):
    """The query of utterances."""

    stream_role: Annotated[Role, ROLE] = "mixed"
    view: Annotated[ViewName, choice(("raw", "merged"))] = "raw"
    limit: Annotated[int, count(50, MOST_UTTERANCES)] = 50


class Configured(msgspec.Struct, frozen=True, kw_only=True):
    """All that is configured, also what was before."""

    session_id: str
    roster_count: int
    config: dict[str, Value]
    roster: tuple[Person, ...]


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """A number for each role."""

    mixed: int
    teacher: int
    students: int


class MeetingState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a meeting stands; ``ingest``, ``asr`` and ``utterance_count`` are those of mixed."""

    session_id: str
    state: SpeakerState
    event_count: int
    updated_at: str | None
    ingest: IngestStatus
    ingest_by_stream: Ingests
    capture_by_stream: Captures
    asr: AsrStatus
    asr_by_stream: Asrs
    utterance_count: int
    utterance_count_by_stream: Counts


class EventsPage(msgspec.Struct, frozen=True, kw_only=True):
    """The last ``limit`` of ``count`` events, oldest first."""

    session_id: str
    stream_role: str
    """``all`` without a role."""
    count: int
    limit: int
    items: Sequence[SpeakerSaid]


class RawPage(msgspec.Struct, frozen=True, kw_only=True):
    """The last ``limit`` of ``count`` utterances, in the order in which they became final."""

    session_id: str
    stream_role: Role
    view: ViewName
    count: int
    limit: int
    items: Sequence[Utterance]


class MergedPage(msgspec.Struct, frozen=True, kw_only=True):
    """The last ``limit`` of ``count`` merged utterances, by their first and last chunk."""

    session_id: str
    stream_role: Role
    view: ViewName
    count: int
    limit: int
    items: Sequence[Merged]


class MeetingEndpoints:
    """Answers for one worker; nothing but ``configure`` writes."""

    def __init__(
        self,
        book: Book,
        views: Views,
        standings: Standings,
        unusable: Callable[[str], str | None],
    ) -> None:
        """``unusable`` says why a recognizer cannot be chosen, None if it can."""
        self._book = book
        self._views = views
        self._standings = standings
        self._unusable = unusable

    async def configure(self, call: Call[NoQuery, Told]) -> Configured:
        """Add to a meeting's configuration; what is blank or empty changes nothing."""
        provider = call.body.provider
        if isinstance(provider, str) and (problem := self._unusable(provider.strip())):
            raise ApiError(400, "bad_body", f"The body cannot be used: {problem}")
        changed = await self._book.change(call.session, PEOPLE, partial(tell, told=call.body))
        people = changed.value
        roster = () if people.roster is UNSET else people.roster
        return Configured(
            session_id=call.session, roster_count=len(roster), config=people.config, roster=roster
        )

    async def state(self, call: Call[NoQuery, None]) -> MeetingState:
        """Where a meeting stands; defaults for one that there is not."""
        standing = await self._standings.of(call.session)
        ingests, asrs, state = standing.ingests, standing.asrs, standing.state
        counts = {role: len(standing.view.raw(role)) for role in ROLES}
        return MeetingState(
            session_id=call.session,
            state=state,
            event_count=len(standing.view.events()),
            updated_at=standing.updated_at,
            ingest=ingests.mixed,
            ingest_by_stream=ingests,
            capture_by_stream=state.capture_by_stream,
            asr=asrs.mixed,
            asr_by_stream=asrs,
            utterance_count=counts["mixed"],
            utterance_count_by_stream=Counts(**counts),
        )

    async def events(self, call: Call[EventsQuery, None]) -> EventsPage:
        """Who said what."""
        role, limit = call.query.stream_role, call.query.limit
        events = (await self._views.of(call.session)).events(role)
        return EventsPage(
            session_id=call.session,
            stream_role=role or "all",
            count=len(events),
            limit=limit,
            items=events[-limit:],
        )

    async def utterances(self, call: Call[UtterancesQuery, None]) -> RawPage | MergedPage:
        """What was said."""
        role, limit = call.query.stream_role, call.query.limit
        view = await self._views.of(call.session)
        if call.query.view == "merged":
            merged = view.merged(role)
            return MergedPage(
                session_id=call.session,
                stream_role=role,
                view="merged",
                count=len(merged),
                limit=limit,
                items=merged[-limit:],
            )
        raw = view.raw(role)
        return RawPage(
            session_id=call.session,
            stream_role=role,
            view="raw",
            count=len(raw),
            limit=limit,
            items=raw[-limit:],
        )
