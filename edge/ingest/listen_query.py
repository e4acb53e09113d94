"""The query of ``/listen``, for both of its protocols: which session, who speaks."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

import msgspec

from edge.ingest.interface import dispatch_asked
from edge.session.names import name_problem

DEFAULT_SPEAKER = "speaker"
MAX_SPEAKER_BYTES = 240
"""Leaves room for what is added to the names of its further tracks."""
MAX_EPOCH_CHARACTERS = 64
MAX_OFFSET_DIGITS = 18
_RESUME = re.compile(
    rf"([0-9A-Za-z_-]{{1,{MAX_EPOCH_CHARACTERS}}}):([0-9]{{1,{MAX_OFFSET_DIGITS}}})"
)


class ResumePoint(msgspec.Struct, frozen=True):
    """The last entry a client has seen: ``offset`` of the session's history ``epoch``."""

    epoch: str
    offset: int


class ListenQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The validated query."""

    session: str | None = None
    """None: a session of its own, with a random name."""
    speaker: str = DEFAULT_SPEAKER
    """The name of the speaker's track in the session's log."""
    language: str | None = None
    provider: str | None = None
    """Lower-cased name, not yet checked against the recognizers that exist."""
    resume: ResumePoint | None = None
    log: bool = False
    """Whether a plain client is told where in the log its turns are."""
    use_dispatcher: bool | None = None
    """None: it does not say."""


def parse_listen_query(query: str) -> ListenQuery | str:
    """Return the validated query, or the body of the 400 that refuses it.

    Of a repeated name the first value counts, unknown names are ignored. An empty ``session`` or
    ``speaker`` counts as absent. Names are 1 to 256 bytes of UTF-8 without control characters;
    a speaker's has no ``/`` and no ``#``, which tell its further tracks apart.
    """
    values = dict(reversed(parse_qsl(query, keep_blank_values=True)))
    session = values.get("session") or None
    if session is not None and (problem := name_problem(session)):
        return f"Invalid session parameter: {problem}; leave it out or send another name"
    speaker = values.get("speaker") or DEFAULT_SPEAKER
    if problem := name_problem(speaker) or _speaker_problem(speaker):
        return f"Invalid speaker parameter: {problem}; leave it out or send another name"
    resume = None
    if text := values.get("resume"):
        match = _RESUME.fullmatch(text)
        if match is None:
            return "Invalid resume parameter: it is written <epoch>:<offset>"
        resume = ResumePoint(match[1], int(match[2]))
    return ListenQuery(
        session=session,
        speaker=speaker,
        language=values.get("lang") or None,
        provider=(values.get("provider") or "").lower() or None,
        resume=resume,
        log=resume is not None or values.get("log") == "true",
        use_dispatcher=dispatch_asked(query),
    )


def _speaker_problem(speaker: str) -> str | None:
    if "/" in speaker or "#" in speaker:
        return "it holds a / or a #"
    if len(speaker.encode()) > MAX_SPEAKER_BYTES:
        return f"it has more than {MAX_SPEAKER_BYTES} bytes of UTF-8"
    return None
