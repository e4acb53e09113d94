"""What is done for a meeting when somebody asks: voices, windows, the end and its result."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Raw

from edge.api.http import ApiError, Call, Headed, NoQuery
from edge.api.parameters import ROLE, count
from edge.errors import InferenceFailed
from edge.meeting.finalize import Finalized
from edge.meeting.meetings import Meetings
from edge.meeting.once import OtherRequest
from edge.meeting.records import Role
from edge.meeting.resolve import ResolveBody
from edge.meeting.windows import ResetResult, WindowsResult

RESOLVE_DEADLINE_S = 80.0
"""The service may be asked three times, when others change the voices meanwhile."""
MAX_RECORDING_BYTES = 8 * 1024 * 1024
"""Of a body with a recording; the service takes 5 MiB of audio."""
RESET_DEADLINE_S = 30.0
"""A live recognizer may take 10 s to end."""
FINALIZE_DEADLINE_S = 75.0
"""That, and another request for the same may be under way."""

RESULT_DEADLINE_S = 60.0
"""The results of long meetings have megabytes."""


class RoleQuery(msgspec.Struct, frozen=True):
    """The query of what is done to one role."""

    stream_role: Annotated[Role, ROLE] = "mixed"


class ResolveQuery(msgspec.Struct, frozen=True):
    """The parameters of a question for a voice."""

    stream_role: Annotated[Role, ROLE] = "mixed"
    idempotency_key: Annotated[
        str,
        msgspec.Meta(
            description="requests with the same key, role and body are done once",
            extra={"header": "x-idempotency-key"},
        ),
    ] = ""


class RunQuery(msgspec.Struct, frozen=True):
    """The query of a run of windows."""

    stream_role: Annotated[Role, ROLE] = "mixed"
    max_windows: Annotated[int, count(0)] = 0


class FinalizeBody(msgspec.Struct, frozen=True):
    """What a meeting is finalized with."""

    metadata: Annotated[
        object, msgspec.Meta(extra_json_schema={"description": "any JSON; goes into the result"})
    ] = None


class WorkEndpoints:
    """Answers for one worker."""

    def __init__(self, meetings: Meetings) -> None:
        self._speakers = meetings.speakers
        self._once = meetings.once
        self._windows = meetings.windows
        self._finalizer = meetings.finalizer

    async def resolve(self, call: Call[ResolveQuery, ResolveBody]) -> Headed:
        """Whose voice a recording is; with a key once, repetitions get the first answer."""
        role, key = call.query.stream_role, call.query.idempotency_key

        async def act() -> bytes:
            return msgspec.json.encode(await self._speakers.resolve(call.session, role, call.body))

        try:
            if not key:
                return Headed(Raw(await act()), {})
            name = f"{role}:{key}"
            answer, is_replay = await self._once.do(call.session, name, call.text, act)
        except InferenceFailed as error:
            raise ApiError(502, "inference_failed", str(error)) from error
        except OtherRequest as error:
            raise ApiError(409, "key_used", str(error)) from error
        return Headed(Raw(answer), {"x-idempotent-replay": "true"} if is_replay else {})

    async def run(self, call: Call[RunQuery, None]) -> WindowsResult:
        """Recognize windows; a recognizer's failure is told in ``last_error``."""
        query = call.query
        return await self._windows.run(call.session, query.stream_role, query.max_windows)

    async def reset(self, call: Call[RoleQuery, None]) -> ResetResult:
        """Forget what a role said; its chunks are kept."""
        return await self._windows.reset(call.session, call.query.stream_role)

    async def finalize(self, call: Call[NoQuery, FinalizeBody]) -> Finalized:
        """Drain what is being said and write result.json."""
        given = call.body.metadata
        try:
            metadata = Raw(msgspec.json.encode({} if given is None else given))
        except RecursionError as error:
            detail = "The body cannot be used: metadata is nested too deeply"
            raise ApiError(400, "bad_body", detail) from error
        return await self._finalizer.finalize(call.session, metadata)

    async def result(self, call: Call[NoQuery, None]) -> Raw:
        """The last result.json; 404 when there is none."""
        result = await self._finalizer.result(call.session)
        if result is None:
            raise ApiError(404, "no_result", "This session was not finalized")
        return Raw(result)
