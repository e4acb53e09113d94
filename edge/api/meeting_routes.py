"""The endpoints of meetings, in one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from edge.api.http import ApiError, Call, Endpoint, NoQuery
from edge.api.meeting import (
    Configured,
    EventsPage,
    EventsQuery,
    MeetingEndpoints,
    MeetingState,
    MergedPage,
    RawPage,
    UtterancesQuery,
)
from edge.meeting.people import Told

MEETING = "/v1/sessions/{session}"


class MeetingServices(msgspec.Struct, frozen=True, kw_only=True):
    """All of a worker that answers requests about meetings."""

    meeting: MeetingEndpoints


def meeting_endpoints(services: MeetingServices) -> Sequence[Endpoint[Any, Any]]:
    """The endpoints, answered by a worker's services."""
    meeting = services.meeting
    return (
        Endpoint(
            method="POST",
            path=f"{MEETING}/config",
            summary="Say who interviews whom, and which recognizer listens",
            query=NoQuery,
            body=Told,
            answer=Configured,
            handle=meeting.configure,
        ),
        Endpoint(
            method="GET",
            path=f"{MEETING}/state",
            summary="Where a meeting stands",
            query=NoQuery,
            answer=MeetingState,
            handle=meeting.state,
        ),
        Endpoint(
            method="GET",
            path=f"{MEETING}/events",
            summary="Who said what",
            query=EventsQuery,
            answer=EventsPage,
            handle=meeting.events,
        ),
        Endpoint(
            method="GET",
            path=f"{MEETING}/utterances",
            summary="What was said",
            query=UtterancesQuery,
            answer=(RawPage, MergedPage),
            handle=meeting.utterances,
        ),
        _socket("/v1/audio/ws/{meeting}"),
        _socket("/v1/audio/ws/{meeting}/{stream_role}"),
    )


def _socket(path: str) -> Endpoint[Any, Any]:
    return Endpoint(
        method="GET",
        path=path,
        summary="Stream audio",
        query=NoQuery,
        is_public=False,
        handle=_not_upgraded,
    )


async def _not_upgraded(call: Call[NoQuery, None]) -> None:
    """``ApiError`` 426."""
    raise ApiError(426, "upgrade_required", "Open a WebSocket here", {"Upgrade": "websocket"})
