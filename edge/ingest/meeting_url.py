"""URLs of the recorder's sockets: ``/v1/audio/ws/{session_id}`` and ``/{role}`` behind it."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, unquote_to_bytes

import msgspec

from edge.ingest.interface import dispatch_asked
from edge.meeting.records import Role, parse_role
from edge.session.names import name_problem

_PREFIX = ("", "v1", "audio", "ws")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_YES = ("1", "true", "yes", "on")


class MeetingUrl(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asked for in its URL."""

    session: str
    role: Role
    transcripts: bool = False
    """Whether what is said is sent back over the socket."""
    provider: str = ""
    """The recognizer; empty takes that of the meeting, or the gateway's."""
    use_dispatcher: bool | None = None
    """None: it does not say."""


def is_meeting_path(path: str) -> bool:
    """Whether a path is below that of recorders."""
    segments = _segments(path)
    return segments[:4] == _PREFIX and len(segments) > 4


def parse_meeting_url(path: str, query: str) -> MeetingUrl | str:
    """Session and role of a percent-encoded path, wishes of the query; or what is wrong."""
    segments = _segments(path)
    if len(segments) not in (5, 6):
        return "The path is /v1/audio/ws/{session_id} or /v1/audio/ws/{session_id}/{role}"
    if _BAD_ESCAPE.search(segments[4]):
        return "The session id is not percent-encoded"
    try:
        session = unquote_to_bytes(segments[4]).decode()
    except UnicodeDecodeError:
        return "The session id is not UTF-8"
    if problem := name_problem(session):
        return f"A session cannot have this id: {problem}"
    role = parse_role(segments[5]) if len(segments) == 6 else "mixed"
    if role is None or (len(segments) == 6 and not segments[5].strip()):
        return "The role is mixed, teacher or students"
    try:
        values = parse_qs(query, max_num_fields=100)
    except ValueError:
        return "The query has over 100 fields"
    return MeetingUrl(
        session=session,
        role=role,
        transcripts=values.get("transcripts", [""])[0].strip().lower() in _YES,
        provider=values.get("provider", [""])[0].strip(),
        use_dispatcher=dispatch_asked(query),
    )


def _segments(path: str) -> tuple[str, ...]:
    return tuple(path.rstrip("/").split("/"))
