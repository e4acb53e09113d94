"""Where messages wait until they are acknowledged; session stores satisfy it as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from dispatch.messages import Envelope


class Row(Protocol):
    """A waiting message; ``attempt`` counts earlier deliveries that failed."""

    @property
    def session(self) -> str: ...
    @property
    def offset(self) -> int: ...
    @property
    def epoch(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def enqueued_ms(self) -> int: ...
    @property
    def body(self) -> bytes: ...


RowT = TypeVar("RowT", bound=Row)


class Outbox(Protocol[RowT]):
    """Rows are leased by session, so that one owner at a time delivers it, in order."""

    async def claim(self, owner: str, limit: int = 100, lease_s: float = 30.0) -> list[RowT]:
        """Lease sessions with waiting rows; those of a session are together and in order."""

    async def ack(self, owner: str, rows: Sequence[RowT]) -> None:
        """Delivered: forget these rows."""

    async def retry(self, owner: str, row: RowT, delay_s: float) -> None:
        """Failed: give the session back; its rows from this one on wait for ``delay_s``."""

    async def bury(self, owner: str, row: RowT, reason: str) -> None:
        """Give a row up; those after it go on."""

    async def outbox_size(self) -> int:
        """How many rows wait."""

    async def oldest_ms(self) -> int | None:
        """When the row that waits longest was put in, in ms since 1970; None when none waits."""

    async def shed(self, keep: int) -> int:
        """Give the oldest rows up until ``keep`` wait (at most 1,000 a call); how many."""

    async def hasten(self, ahead_s: float) -> None:
        """Sessions that are to wait longer than that from now on wait no longer than that.

        A clock that was set back would otherwise hold them up for as long as it went back.
        """


def message_id(row: Row) -> str:
    """What tells a redelivery from another message."""
    return f"{row.session}:{row.offset}"


def envelope(row: Row) -> Envelope:
    """What a transport is given of a row."""
    return Envelope(
        message_id(row), row.session, row.body, row.attempt + 1, row.epoch, row.enqueued_ms
    )
