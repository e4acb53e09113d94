"""The records of meetings: read with defaults, changed by compare-and-set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from edge.errors import Conflict, StoreBusy
from edge.meeting.records import Asr, Captures, Ingest, People, Role, Voices
from edge.session.store.interface import SessionStore

FAMILY = "meeting"
MOST_TRIES = 100
"""Each lost race is another's change, so that somebody always gets on."""

T = TypeVar("T", bound=msgspec.Struct)


class Leaf(Generic[T]):
    """One kind of record: its key and how it reads."""

    def __init__(self, key: str, kind: type[T]) -> None:
        self.key = key
        self.default = kind()
        self.decode = msgspec.json.Decoder(kind).decode


PEOPLE = Leaf("people", People)
VOICES = Leaf("voices", Voices)
CAPTURES = Leaf("captures", Captures)
INGEST: dict[Role, Leaf[Ingest]] = {
    "mixed": Leaf("ingest/mixed", Ingest),
    "teacher": Leaf("ingest/teacher", Ingest),
    "students": Leaf("ingest/students", Ingest),
}
ASR: dict[Role, Leaf[Asr]] = {
    "mixed": Leaf("asr/mixed", Asr),
    "teacher": Leaf("asr/teacher", Asr),
    "students": Leaf("asr/students", Asr),
}

_encode = msgspec.json.Encoder().encode


class Versioned(msgspec.Struct, Generic[T], frozen=True):
    """A record, and which version of it: 0 when it is the default and nothing is stored."""

    value: T
    version: int


class Book:
    """One worker's way to the records; stateless, all methods raise what the store raises."""

    def __init__(self, store: SessionStore) -> None:
        self.store = store

    async def look(self, session: str, leaf: Leaf[T]) -> Versioned[T]:
        """A record with its version."""
        record = await self.store.get(session, FAMILY, leaf.key)
        if record is None:
            return Versioned(leaf.default, 0)
        return Versioned(leaf.decode(record.body), record.version)

    async def read(self, session: str, leaf: Leaf[T]) -> T:
        """A record, or the default when there is none; nothing is created."""
        return (await self.look(session, leaf)).value

    async def write(self, session: str, leaf: Leaf[T], value: T, version: int) -> Versioned[T]:
        """Replace exactly this version; ``Conflict`` when another was quicker.

        The first record of a session makes it; ``SessionDeleted`` for one that was deleted.
        """
        if version == 0:
            await self.store.ensure(session)
        body = _encode(value)
        return Versioned(value, await self.store.put(session, FAMILY, leaf.key, body, version))

    async def change(
        self,
        session: str,
        leaf: Leaf[T],
        patch: Callable[[T], T],
        known: Versioned[T] | None = None,
    ) -> Versioned[T]:
        """Replace a record by ``patch`` of it, of whatever others have made of it meanwhile.

        ``patch`` has no effects of its own: it may be called more than once. When it gives back
        what it got nothing is written. ``known`` saves the first reading.
        """
        current = known or await self.look(session, leaf)
        for _ in range(MOST_TRIES):
            value = patch(current.value)
            if value is current.value:
                return current
            try:
                return await self.write(session, leaf, value, current.version)
            except Conflict as conflict:
                current = (
                    Versioned(leaf.decode(conflict.body), conflict.version)
                    if conflict.version
                    else Versioned(leaf.default, 0)
                )
        raise StoreBusy(f"the record {leaf.key} changes too quickly")
