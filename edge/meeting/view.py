"""What a meeting's log says of utterances and speakers, read once and kept up to date.

Comes in: pages of the log. Goes out: utterances, merged or not, and speaker events. A request
reads only what was logged since the last one, however long the meeting is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from edge.meeting.merge import Merging
from edge.meeting.records import (
    CHUNK_MS,
    ROLES,
    Merged,
    Role,
    SpeakerSaid,
    Utterance,
    iso,
    parse_role,
)
from edge.session.entries import FinalEntry, ResetEntry, SpeakerEntry, decode_entry
from edge.session.store.interface import Entry, SessionStore

MOST_VIEWS = 200
MOST_KEPT = 200_000
"""Utterances and events of all views of a worker; those not asked for longest go first."""
AT_ONCE = 50
"""Entries that are taken before others get their turn."""
WINDOWS = "/windows"
"""What the name of a role's second track ends with, which says what windows gave."""
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

_said = msgspec.json.Decoder(SpeakerSaid).decode


def role_of(entry: Entry) -> Role | None:
    """The role that an entry's track belongs to."""
    name = entry.track.removesuffix(WINDOWS)
    return parse_role(name) if name in ROLES else None


def utterance(session: str, role: Role, final: FinalEntry, at_ms: int) -> Utterance:
    """A final as REST gives it; its numbers are those of the chunks that hold it.

    ``at_ms``: when it became final, unix time.
    """
    start_seq = final.start_ms // CHUNK_MS + 1
    end_seq = max(start_seq, -(-final.end_ms // CHUNK_MS))
    return Utterance(
        utterance_id=f"{session}-{role}-{end_seq:08d}-{_base36(final.timestamp_unix_ms)}",
        session_id=session,
        stream_role=role,
        text=final.text,
        start_seq=start_seq,
        end_seq=end_seq,
        start_ms=final.start_ms,
        end_ms=final.end_ms,
        duration_ms=final.end_ms - final.start_ms,
        asr_model=final.model or "",
        asr_provider=final.provider,
        confidence=final.confidence,
        created_at=iso(at_ms),
        latency_ms=final.latency_ms,
    )


class View:
    """One meeting; made by ``Views``."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.reading = asyncio.Lock()
        self.forget("")

    def forget(self, epoch: str) -> None:
        """The log is another one."""
        self.epoch = epoch
        self.offset = 0
        """Entries up to here are in it."""
        self._raw: dict[Role, list[Utterance]] = {role: [] for role in ROLES}
        self._events: list[SpeakerSaid] = []
        self._merging: dict[Role, Merging] = {role: Merging() for role in ROLES}

    def __len__(self) -> int:
        return len(self._events) + sum(len(raw) for raw in self._raw.values())

    def raw(self, role: Role) -> Sequence[Utterance]:
        """The utterances of a role in the order of the log."""
        return self._raw[role]

    def merged(self, role: Role) -> Sequence[Merged]:
        """The utterances of a role with those that overlap made one."""
        return self._merging[role].merged()

    def fold(self) -> None:
        """Merge what came, so that ``merged`` has little left to do."""
        for merging in self._merging.values():
            merging.merged()

    def events(self, role: Role | None = None) -> Sequence[SpeakerSaid]:
        """Who said what, in the order of the log."""
        if role is None:
            return self._events
        return [event for event in self._events if event.stream_role == role]

    def take(self, entry: Entry) -> None:
        """The next entry of the log."""
        self.offset = entry.offset
        body = decode_entry(entry.body)
        if isinstance(body, FinalEntry):
            if role := role_of(entry):
                said = utterance(self.session, role, body, entry.at_ms)
                self._raw[role].append(said)
                self._merging[role].add(said)
        elif isinstance(body, SpeakerEntry):
            with contextlib.suppress(msgspec.MsgspecError):  # said by another version
                self._events.append(_said(body.said))
        elif isinstance(body, ResetEntry) and (role := parse_role(body.role)):
            self._raw[role] = []
            self._merging[role] = Merging()
            self._events = [event for event in self._events if event.stream_role != role]


class Views:
    """One worker's views, a bounded number of them."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._views: OrderedDict[str, View] = OrderedDict()

    async def of(self, session: str) -> View:
        """What the log says now; an empty view for a session that there is not.

        Raises what the store raises. Its lists are not to be changed, nor kept.
        """
        view = self._views.get(session) or View(session)
        async with view.reading:
            head = await self._store.head(session)
            if head is None:
                self._views.pop(session, None)
                return View(session)
            if view.epoch != head.epoch or view.offset > head.head:
                view.forget(head.epoch)
            view.offset = max(view.offset, head.tail - 1)
            while view.offset < head.head:
                page = await self._store.read(session, view.offset)
                if page is None or page.head.epoch != view.epoch or not page.entries:
                    break
                for entry in page.entries:
                    view.take(entry)
                    if entry.offset % AT_ONCE == 0:
                        view.fold()
                        await asyncio.sleep(0)
        self._keep(view)
        return view

    def _keep(self, view: View) -> None:
        self._views[view.session] = view
        self._views.move_to_end(view.session)
        kept = sum(len(each) for each in self._views.values())
        while len(self._views) > MOST_VIEWS or (kept > MOST_KEPT and len(self._views) > 1):
            kept -= len(self._views.popitem(last=False)[1])


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"
