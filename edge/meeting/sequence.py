"""Which chunks of a role are new: pure rules on its ``Ingest`` record.

Comes in: the record and a number. Goes out: what a chunk of this number is, and the record after
it. A chunk that fills a gap is as good as one that comes next.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from edge.errors import EdgescribeError
from edge.meeting.records import CHUNK_BYTES, Ingest, iso

MOST_GAPS = 1000
"""Runs of missing chunks that a role may have; each is looked through for every chunk."""


class ChunkRefused(EdgescribeError):
    """A chunk that is not taken, whatever it holds; ``code`` is for programs."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        super().__init__(detail)


def judge(ingest: Ingest, seq: int, max_jump: int) -> Literal["new", "duplicate"]:
    """What a chunk of this number is; raises ``ChunkRefused``."""
    if ingest.has(seq):
        return "duplicate"
    if seq > ingest.last_seq + max_jump:
        raise ChunkRefused(
            "seq_jump",
            f"chunk {seq} is more than {max_jump} ahead of the last one, {ingest.last_seq}",
        )
    if seq > ingest.last_seq + 1 and len(ingest.missing) >= MOST_GAPS:
        raise ChunkRefused(
            "too_many_gaps",
            f"the stream has {MOST_GAPS} gaps: send what is missing, or chunk"
            f" {ingest.last_seq + 1} next",
        )
    return "new"


def store(ingest: Ingest, seq: int, size: int) -> Ingest:
    """The record after a new chunk of ``size`` bytes was stored."""
    now = iso()
    short = ingest.short if size == CHUNK_BYTES else (seq, size)
    return msgspec.structs.replace(
        ingest,
        last_seq=max(ingest.last_seq, seq),
        received_chunks=ingest.received_chunks + 1,
        bytes_stored=ingest.bytes_stored + size,
        missing=_without(ingest, seq),
        short=short,
        started_at=ingest.started_at or now,
        updated_at=now,
    )


def repeat(ingest: Ingest) -> Ingest:
    """The record after a chunk came that is stored already."""
    return msgspec.structs.replace(
        ingest, duplicate_chunks=ingest.duplicate_chunks + 1, updated_at=iso()
    )


def _without(ingest: Ingest, seq: int) -> tuple[tuple[int, int], ...]:
    """The runs that are missing once ``seq`` is not."""
    if seq > ingest.last_seq + 1:
        return (*ingest.missing, (ingest.last_seq + 1, seq - 1))
    if seq > ingest.last_seq:
        return ingest.missing
    runs: list[tuple[int, int]] = []
    for first, last in ingest.missing:
        if first <= seq <= last:
            runs += [run for run in ((first, seq - 1), (seq + 1, last)) if run[0] <= run[1]]
        else:
            runs.append((first, last))
    return tuple(runs)
