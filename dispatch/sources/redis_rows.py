"""Entries of a Redis queue, and its dead letters, as rows."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from dispatch.redis_stream import FIELDS, REASON, envelope_of

UNREADABLE = "not an entry of the dispatch queue"


class RedisRow(msgspec.Struct, frozen=True):
    """An entry; ``name`` is its id in the stream of its partition."""

    name: str
    session: str
    offset: int
    epoch: str
    attempt: int
    enqueued_ms: int
    body: bytes

    def failed(self) -> RedisRow:
        return msgspec.structs.replace(self, attempt=self.attempt + 1)


class RedisLetter(msgspec.Struct, frozen=True):
    """A message that was given up: why, and when (ms since 1970)."""

    row: RedisRow
    reason: str
    died_ms: int


def row_of(name: str, fields: Mapping[bytes, bytes] | None) -> RedisRow:
    """An entry as a row; ``ValueError`` when it is none of ours."""
    envelope = envelope_of(fields or {})
    session, _, offset = envelope.message_id.rpartition(":")
    if session != envelope.session:
        raise ValueError("the id is not that of a message of the session")
    return RedisRow(
        name,
        session,
        int(offset),
        envelope.epoch,
        max(envelope.attempt - 1, 0),
        envelope.enqueued_ms,
        envelope.body,
    )


def letter_of(name: str, fields: Mapping[bytes, bytes]) -> RedisLetter:
    """A dead letter, also of what was no entry of ours."""
    reason = fields.get(REASON.encode(), b"").decode(errors="replace")
    died_ms = int(name.partition("-")[0])
    try:
        row = row_of(name, fields)
    except ValueError:
        body = fields.get(FIELDS[2].encode(), b"")
        return RedisLetter(RedisRow(name, "?", 0, "", 0, died_ms, body), UNREADABLE, died_ms)
    return RedisLetter(row, reason, died_ms)
