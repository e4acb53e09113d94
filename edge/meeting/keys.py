"""Where a meeting's objects lie in the object store."""

from __future__ import annotations

from edge.meeting.records import Role
from edge.session.names import safe_name


def session_prefix(session: str) -> str:
    """What the keys of all objects of a session begin with; no other session's do."""
    return f"sessions/{safe_name(session)}/"


def chunk_prefix(session: str, role: Role) -> str:
    """What the keys of a role's chunks begin with, and of nothing else but, for ``mixed``, the
    folders of the other roles."""
    folder = "" if role == "mixed" else f"{role}/"
    return f"{session_prefix(session)}chunks/{folder}"


def chunk_key(session: str, role: Role, seq: int) -> str:
    """The key of one chunk: keys of a role are in order up to chunk 99,999,999."""
    return f"{chunk_prefix(session, role)}{seq:08d}.pcm"


def seq_of(key: str) -> int | None:
    """The number of the chunk with this key, None for another object."""
    name = key.rpartition("/")[2].removesuffix(".pcm")
    return int(name) if name.isdecimal() else None


def result_key(session: str) -> str:
    """The key of result.json."""
    return f"{session_prefix(session)}result.json"
