"""The endpoints of meetings, in one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edge.api.http import LONGEST_DEADLINE_S, ApiError, Call, Endpoint, NoQuery
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
from edge.api.meeting_audio import AUDIO_DEADLINE_S, WAV, AudioEndpoint, AudioQuery
from edge.api.meeting_work import (
    FINALIZE_DEADLINE_S,
    MAX_RECORDING_BYTES,
    RESET_DEADLINE_S,
    RESOLVE_DEADLINE_S,
    RESULT_DEADLINE_S,
    FinalizeBody,
    ResolveQuery,
    RoleQuery,
    RunQuery,
    WorkEndpoints,
)
from edge.api.openapi import JSON
from edge.meeting.finalize import Finalized
from edge.meeting.meetings import Meetings
from edge.meeting.people import Told
from edge.meeting.resolve import ResolveBody, Resolved
from edge.meeting.windows import ResetResult, WindowsResult

MEETING = "/v1/sessions/{session}"


def meeting_endpoints(
    meetings: Meetings, unusable: Callable[[str], str | None]
) -> Sequence[Endpoint[Any, Any]]:
    """The endpoints, answered by a worker's meetings; ``unusable`` says why a recognizer cannot be
    chosen, None if it can."""
    known = MeetingEndpoints(meetings.book, meetings.views, meetings.standings, unusable)
    work = WorkEndpoints(meetings)
    return (
        *_known(known),
        *_done(work),
        Endpoint(
            method="GET",
            path=f"{MEETING}/audio",
            summary="The stored audio of a role",
            query=AudioQuery,
            content_types=(WAV,),
            errors=(404, 505),
            deadline_s=AUDIO_DEADLINE_S,
            handle=AudioEndpoint(meetings.book, meetings.objects).get,
        ),
        socket_endpoint("/v1/audio/ws/{meeting}"),
        socket_endpoint("/v1/audio/ws/{meeting}/{stream_role}"),
    )


def _known(meeting: MeetingEndpoints) -> Sequence[Endpoint[Any, Any]]:
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
    )


def _done(work: WorkEndpoints) -> Sequence[Endpoint[Any, Any]]:
    return (
        Endpoint(
            method="POST",
            path=f"{MEETING}/resolve",
            summary="Whose voice a recording is",
            query=ResolveQuery,
            body=ResolveBody,
            max_body_bytes=MAX_RECORDING_BYTES,
            answer=Resolved,
            errors=(502,),
            deadline_s=RESOLVE_DEADLINE_S,
            handle=work.resolve,
        ),
        Endpoint(
            method="POST",
            path=f"{MEETING}/asr-run",
            summary="Recognize what is stored, window by window",
            query=RunQuery,
            answer=WindowsResult,
            deadline_s=LONGEST_DEADLINE_S,
            handle=work.run,
        ),
        Endpoint(
            method="POST",
            path=f"{MEETING}/asr-reset",
            summary="Forget what was recognized",
            query=RoleQuery,
            answer=ResetResult,
            deadline_s=RESET_DEADLINE_S,
            handle=work.reset,
        ),
        Endpoint(
            method="POST",
            path=f"{MEETING}/finalize",
            summary="End a meeting: drain it and write result.json",
            query=NoQuery,
            body=FinalizeBody,
            answer=Finalized,
            deadline_s=FINALIZE_DEADLINE_S,
            handle=work.finalize,
        ),
        Endpoint(
            method="GET",
            path=f"{MEETING}/result",
            summary="The last result.json",
            query=NoQuery,
            content_types=(JSON,),
            errors=(404,),
            deadline_s=RESULT_DEADLINE_S,
            handle=work.result,
        ),
    )


def socket_endpoint(path: str) -> Endpoint[Any, Any]:
    """What plain requests for the path of a socket are answered with."""
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
