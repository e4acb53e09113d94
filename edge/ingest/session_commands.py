"""The commands of ``edge.session.v1``: who may give which, and that each is done once.

An answer is kept for 24 hours under the command's id, beside the session's log: a client that lost
the connection before the answer sends the command again, by way of whichever worker.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec import Raw

from edge.errors import Conflict, SessionDeleted, StoreError
from edge.ingest.session_events import event_text
from edge.ingest.session_messages import (
    DATA,
    Command,
    ConfigureData,
    HistoryData,
    MuteData,
    Problem,
    RenameData,
    Result,
    Role,
    SpeakerData,
    encode,
)
from edge.session.entries import ConfigEntry
from edge.session.ledger import Ledger
from edge.session.names import name_problem
from edge.session.store import commands, idempotency

ALLOWED: dict[Role, frozenset[str]] = {
    "listener": frozenset({"history", "leave"}),
    "speaker": frozenset({"end_turn", "rename", "mute", "configure", "history", "leave"}),
    "admin": frozenset({"end_turn", "clear", "rename", "mute", "configure", "history", "leave"}),
}
"""A speaker may command its own track only, an admin all of them."""
UNKEPT = frozenset({"history", "leave"})
"""They change nothing, so that doing them again is as good as the old answer."""
ANSWER_WITHIN_S = 10.0
CONFIG = "config"
CONFIG_KEY = "values"
MAX_VALUES = 64
MAX_CONFIG_BYTES = 16 * 1024
NAME_PREFIX = "name:"

Values = dict[str, str | int | float | bool]
_values = msgspec.json.Decoder(dict[str, str | int | float | bool]).decode


class Refused(Exception):
    """A command is not done; ``retry``: it may be later."""

    def __init__(self, code: str, message: str, *, retry: bool = False) -> None:
        self.problem = Problem(code, message, retry)
        super().__init__(message)


class Commands:
    """The commands of one connection.

    ``local`` does what concerns the connection's own track: why not, empty when it is done, None
    when it has none.
    """

    def __init__(
        self,
        ledger: Ledger,
        session: str,
        role: Role,
        speaker: str,
        local: Callable[[str, bytes], bytes | None],
    ) -> None:
        self._ledger = ledger
        self._session = session
        self._role: Role = role
        self._speaker = speaker
        self._local = local

    async def execute(self, command: Command) -> Result:
        """Do a command, or say why not; the same answer for the same id."""
        try:
            data = self._checked(command)
            if command.op in UNKEPT:
                return _done(command.id, await self._do(command, data))
            return await self._once(command, data)
        except Refused as refusal:
            return Result(command.id, False, err=refusal.problem)
        except SessionDeleted:
            return _problem(command.id, "session_ended", "the session was deleted", retry=False)
        except StoreError as error:
            message = "the session store does not answer; try again"
            return _problem(command.id, "store_unavailable", message, retry=error.retryable)

    def _checked(self, command: Command) -> msgspec.Struct:
        if command.op not in ALLOWED[self._role]:
            raise Refused("forbidden", f"the role {self._role} may not {command.op}")
        try:
            data = DATA[command.op].decode(command.data)
        except msgspec.MsgspecError as error:
            raise Refused("bad_data", f"{command.op}: {error}") from None
        wanted = getattr(data, "speaker", None)
        if wanted is not None and name_problem(wanted):
            raise Refused("bad_data", f"{command.op}: no speaker can have this name")
        if wanted not in (None, self._speaker) and self._role != "admin":
            raise Refused("forbidden", "a speaker commands its own track only")
        return data

    async def _once(self, command: Command, data: msgspec.Struct) -> Result:
        store, session = self._ledger.store, self._session
        asked = f"{command.op} {self._speaker} ".encode() + bytes(command.data)
        key = f"cmd {command.id}"
        kept = await idempotency.reserve(store, session, key, asked)
        if kept.state == "other":
            raise Refused("id_taken", "another command has this id; give each its own")
        if kept.state == "running":
            raise Refused("running", "this command is being done; ask again", retry=True)
        if kept.state == "done":
            return msgspec.json.decode(kept.answer, type=Result)
        try:
            result = _done(command.id, await self._do(command, data))
        except Refused as refusal:
            if refusal.problem.retry:
                await idempotency.release(store, session, key, kept)
                raise
            result = Result(command.id, False, err=refusal.problem)
        try:
            await idempotency.finish(store, session, key, asked, kept, encode(result))
        except Conflict:
            raise Refused("running", "this command took too long", retry=True) from None
        return result

    async def _do(self, command: Command, data: msgspec.Struct) -> Any:
        work: Awaitable[Any]
        match data:
            case SpeakerData() | MuteData():
                work = self._track(command, data.speaker or self._speaker)
            case RenameData():
                name = {f"{NAME_PREFIX}{data.speaker or self._speaker}": data.name}
                work = self._configure(dict(name))
            case ConfigureData():
                if any(name.startswith(NAME_PREFIX) for name in data.values):
                    raise Refused("bad_data", f"use rename for values that begin {NAME_PREFIX}")
                work = self._configure(data.values)
            case HistoryData():
                work = self._history(data)
            case _:
                work = self._clear() if command.op == "clear" else _nothing()
        return await work

    async def _track(self, command: Command, speaker: str) -> None:
        """What the holder of a track does, on whichever worker."""
        if not speaker:
            raise Refused("bad_data", f"{command.op} needs a speaker")
        body = bytes(command.data)
        if speaker == self._speaker and (answer := self._local(command.op, body)) is not None:
            if answer:
                raise Refused("refused", answer.decode())
            return
        sent = commands.Command(f"track {command.id}", speaker, command.op, body)
        try:
            answer = await commands.send(self._ledger.store, self._session, sent, ANSWER_WITHIN_S)
        except Conflict:
            raise Refused("id_taken", "another command has this id; give each its own") from None
        if answer is None:
            raise Refused("no_track", f"nobody speaks as {speaker!r} now", retry=True)
        if answer:
            raise Refused("refused", answer.decode("utf-8", "replace"))

    async def _configure(self, changes: dict[str, Any]) -> Values:
        store, session = self._ledger.store, self._session
        while True:
            record = await store.get(session, CONFIG, CONFIG_KEY)
            values = _values(record.body) if record else {}
            for name, value in changes.items():
                values.pop(name, None)
                if value is not None:
                    values[name] = value
            body = encode(values)
            if len(values) > MAX_VALUES or len(body) > MAX_CONFIG_BYTES:
                raise Refused("too_much", f"a session keeps {MAX_VALUES} values, 16 KiB in all")
            try:
                await store.put(session, CONFIG, CONFIG_KEY, body, record.version if record else 0)
            except Conflict:
                continue
            self._ledger.note(session, ConfigEntry(values=changes))
            return values

    async def _history(self, data: HistoryData) -> Any:
        page = await self._ledger.store.read(self._session, data.after, data.limit)
        if page is None:
            raise SessionDeleted(self._session)
        return {
            "epoch": page.head.epoch,
            "tail": page.head.tail,
            "head": page.head.head,
            "entries": [Raw(event_text(entry)) for entry in page.entries],
        }

    async def _clear(self) -> Any:
        head = await self._ledger.store.clear(self._session)
        return {"epoch": head.epoch, "offset": head.head}


async def _nothing() -> None:
    return None


def _done(id: str, data: Any) -> Result:
    return Result(id, True) if data is None else Result(id, True, data=Raw(encode(data)))


def _problem(id: str, code: str, message: str, *, retry: bool) -> Result:
    return Result(id, False, err=Problem(code, message, retry))
