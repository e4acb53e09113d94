"""result.json: all that is known of a meeting, as one document.

Comes in: where the meeting stands. Goes out: its JSON, and a digest by which a later one can be
told from it. A long meeting is written down in pieces: the event loop goes on in between.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

from msgspec import Raw, Struct
from msgspec.structs import replace

from edge.meeting.merge import Merging
from edge.meeting.records import ROLES, Merged, Role, Utterance, encode
from edge.meeting.status import Standing

AT_ONCE = 500
"""Utterances that are encoded in one turn of the event loop."""
MERGED_AT_ONCE = 100


class Result(Struct, frozen=True):
    """The document, and what it says but for times of writing and how recognizers fare."""

    body: bytes
    digest: str
    event_count: int


async def written(standing: Standing, metadata: Raw, finalized_at: str) -> Result:
    """The result of a meeting that stands so."""
    view = standing.view
    said = tuple(view.events())
    raw_utterances = {role: tuple(view.raw(role)) for role in ROLES}
    state = encode(standing.state)
    events = await _list(said)
    raw = {role: await _list(raw_utterances[role]) for role in ROLES}
    merged = {role: await _list(await _merged(raw_utterances[role])) for role in ROLES}
    missing = {role: await _missing(standing, role) for role in ROLES}
    ingests, asrs = standing.ingests, standing.asrs
    body = _object(
        session_id=encode(standing.session),
        finalized_at=encode(finalized_at),
        state=state,
        events=events,
        ingest=encode(ingests.mixed),
        ingest_by_stream=encode(ingests),
        capture_by_stream=encode(standing.captures),
        asr=encode(asrs.mixed),
        asr_by_stream=encode(asrs),
        utterances_raw=raw["mixed"],
        utterances_raw_by_stream=_object(**raw),
        utterances_merged_by_stream=_object(**merged),
        missing_seqs=_object(**missing),
        metadata=bytes(metadata),
    )
    digest = hashlib.sha256()
    stored = [encode(replace(standing.ingest[role], updated_at=None)) for role in ROLES]
    for part in (state, events, *raw.values(), *stored, bytes(metadata)):
        digest.update(part)
    return Result(body, digest.hexdigest(), len(said))


async def _missing(standing: Standing, role: Role) -> bytes:
    """The numbers of the chunks that a role lacks: thousands in each of a thousand runs at most."""
    pieces = []
    for first, last in standing.ingest[role].missing:
        pieces.append(encode(list(range(first, last + 1)))[1:-1])
        await asyncio.sleep(0)
    return b"[" + b",".join(pieces) + b"]"


async def _merged(utterances: Sequence[Utterance]) -> Sequence[Merged]:
    """Utterances that overlap made one, some at a time: in the order of time that costs no more."""
    merging = Merging()
    merged: Sequence[Merged] = ()
    ordered = sorted(
        utterances, key=lambda u: (u.start_seq, u.end_seq, u.created_at, u.utterance_id)
    )
    for start in range(0, len(ordered), MERGED_AT_ONCE):
        for utterance in ordered[start : start + MERGED_AT_ONCE]:
            merging.add(utterance)
        merged = merging.merged()
        await asyncio.sleep(0)
    return merged


async def _list(items: Sequence[Struct]) -> bytes:
    pieces = []
    for start in range(0, len(items), AT_ONCE):
        pieces.append(encode(items[start : start + AT_ONCE])[1:-1])
        await asyncio.sleep(0)
    return b"[" + b",".join(pieces) + b"]"


def _object(**members: bytes) -> bytes:
    return (
        b"{"
        + b",".join(b'"%s":%s' % (name.encode(), body) for name, body in members.items())
        + b"}"
    )
