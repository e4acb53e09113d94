"""Which chunks of a role are stored, by their numbers: pure rules on the ``Ingest`` record.

Comes in: a record and a number. Goes out: what to do with that chunk, and the record after it was
done. Numbers count from 1; one is stored once, in whatever order they come.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec.structs import replace

from edge.meeting.records import CHUNK_BYTES, Ingest, iso

Verdict = Literal["new", "duplicate", "seq_jump", "too_many_gaps"]
MOST_GAPS = 1000
"""Runs of missing numbers that a role may have: they are part of a record that each chunk writes.
"""


def judge(ingest: Ingest, seq: int, max_seq_jump: int) -> Verdict:
    """What a chunk is: to be stored, stored already, or too far ahead to be meant."""
    if ingest.has(seq):
        return "duplicate"
    if seq > ingest.last_seq + max_seq_jump:
        return "seq_jump"
    if seq > ingest.last_seq + 1 and len(ingest.missing) >= MOST_GAPS:
        return "too_many_gaps"
    return "new"


def stored(ingest: Ingest, seq: int, size: int) -> Ingest:
    """The record after a chunk of ``size`` bytes was stored; the same if it was stored before."""
    if ingest.has(seq):
        return ingest
    now = iso()
    short = ingest.short
    if size < CHUNK_BYTES and (short is None or seq > short[0]):
        short = (seq, size)
    return replace(
        ingest,
        last_seq=max(ingest.last_seq, seq),
        received_chunks=ingest.received_chunks + 1,
        bytes_stored=ingest.bytes_stored + size,
        missing=_without(ingest, seq),
        short=short,
        started_at=ingest.started_at or now,
        updated_at=now,
    )


def doubled(ingest: Ingest) -> Ingest:
    """The record after a chunk came that is stored already."""
    return replace(ingest, duplicate_chunks=ingest.duplicate_chunks + 1, updated_at=iso())


def next_stored(ingest: Ingest, seq: int) -> int | None:
    """The first number from ``seq`` on that is stored."""
    seq = max(seq, 1)
    for first, last in ingest.missing:
        if first <= seq <= last:
            seq = last + 1
    return seq if seq <= ingest.last_seq else None


def first_missing(ingest: Ingest) -> int:
    """The first number that is not stored."""
    return ingest.missing[0][0] if ingest.missing else ingest.last_seq + 1


def uncounted(ingest: Ingest, found: Iterable[int]) -> list[int]:
    """Those of ``found`` that the record does not count."""
    return [seq for seq in found if not ingest.has(seq)]


def _without(ingest: Ingest, seq: int) -> tuple[tuple[int, int], ...]:
    if seq > ingest.last_seq:
        if seq == ingest.last_seq + 1:
            return ingest.missing
        return (*ingest.missing, (ingest.last_seq + 1, seq - 1))
    gaps: list[tuple[int, int]] = []
    for first, last in ingest.missing:
        if not first <= seq <= last:
            gaps.append((first, last))
            continue
        if first < seq:
            gaps.append((first, seq - 1))
        if seq < last:
            gaps.append((seq + 1, last))
    return tuple(gaps)
