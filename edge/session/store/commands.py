"""Commands to whoever holds a live track, with answers; done once by id within 24 hours.

Comes in: a command for a track, from any worker. Goes out: the answer of the worker that holds the
track. The command travels as a record, and the holder takes it by compare-and-set before it does
anything, so that it happens at most once even if two believe they hold the track.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Literal

import msgspec

from edge.errors import Conflict, StoreBusy, StoreUnavailable
from edge.session.store.interface import Grant, Record, SessionStore, Signal, check_name

REMEMBERED_S = 86400.0
LOOK_S = 1.0
FLUSH = "flush"
"""Asks for the last finals of all audio that came so far; answered when they are in the log."""
COMMANDS = "command"
PENDING = "pending"
"""Ids of commands that nobody has taken yet, each with the name of its track."""


class Command(msgspec.Struct, frozen=True):
    """What is asked of a track, and how far it is; ``answer`` counts once ``state`` is answered."""

    id: str
    track: str
    op: str
    body: bytes
    state: Literal["sent", "taken", "answered"] = "sent"
    answer: bytes = b""


Execute = Callable[[Command], Awaitable[bytes]]
"""Does a command and gives its answer, refusals included; must not raise."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Command).decode


async def send(
    store: SessionStore,
    session: str,
    command: Command,
    timeout_s: float = 10.0,
    *,
    taken_within_s: float | None = None,
) -> bytes | None:
    """Have a command done and return the answer; the stored one if it was done before.

    None when there was no answer in time: nobody holds the track, or it takes longer. A holder that
    lives takes a command at once: ``taken_within_s`` gives up earlier where none did. Sending the
    same id again asks for the same answer; ``Conflict`` if the id belongs to another command.
    """
    check_name(command.id)
    give_up_s = time.monotonic() + (timeout_s if taken_within_s is None else taken_within_s)
    nudged = asyncio.Event()
    end = store.listen(session, lambda _: nudged.set())
    try:
        await store.listening(session)
        if (record := await enter(store, session, command, timeout_s)) is None:
            return None
        async with asyncio.timeout(timeout_s):
            while (known := _decode(record.body)).state != "answered":
                if known.state == "sent" and time.monotonic() >= give_up_s:
                    return None
                await wait(nudged)
                found = await store.get(session, COMMANDS, command.id)
                if found is None:
                    return None
                record = found
        return known.answer
    except TimeoutError:
        return None
    finally:
        end()


async def enter(
    store: SessionStore, session: str, command: Command, timeout_s: float
) -> Record | None:
    """Write the command down, unless it is; the record as it is then."""
    body = _encode(command)
    try:
        await store.put(session, COMMANDS, command.id, body, 0, REMEMBERED_S)
    except Conflict as conflict:
        known = _decode(conflict.body)
        if (known.track, known.op, known.body) != (command.track, command.op, command.body):
            raise
        if known.state != "sent":
            return Record(command.id, conflict.version, conflict.body)
    with contextlib.suppress(Conflict):
        await store.put(session, PENDING, command.id, command.track.encode(), 0, timeout_s)
    return await store.get(session, COMMANDS, command.id)


async def wait(nudged: asyncio.Event) -> None:
    """Until something happened, or it is time to look."""
    try:
        async with asyncio.timeout(LOOK_S):
            await nudged.wait()
    except TimeoutError:
        pass
    nudged.clear()


async def serve(store: SessionStore, grant: Grant, execute: Execute) -> None:
    """Do the commands of a track one after the other, until cancelled."""
    nudged = asyncio.Event()
    nudged.set()

    def hear(signal: Signal) -> None:
        if not signal.head and not signal.body:
            nudged.set()

    end = store.listen(grant.session, hear)
    try:
        await store.listening(grant.session)
        while True:
            await wait(nudged)
            try:
                for command, version in await take(store, grant.session, {grant.track}):
                    await answer(store, grant.session, command, version, await execute(command))
            except (StoreUnavailable, StoreBusy):
                await asyncio.sleep(LOOK_S)
    finally:
        end()


async def take(
    store: SessionStore, session: str, tracks: Collection[str]
) -> list[tuple[Command, int]]:
    """Take what waits for these tracks; each is to be done now, and answered with its version."""
    taken = []
    for waiting in await store.records(session, PENDING):
        if waiting.body.decode() not in tracks:
            continue
        record = await store.get(session, COMMANDS, waiting.key)
        if record is None:
            continue
        command = _decode(record.body)
        if command.state == "sent":
            command = msgspec.structs.replace(command, state="taken")
            body = _encode(command)
            try:
                version = await store.put(
                    session, COMMANDS, command.id, body, record.version, REMEMBERED_S
                )
            except Conflict:
                continue
            taken.append((command, version))
        with contextlib.suppress(Conflict):
            await store.drop(session, PENDING, waiting.key, waiting.version)
    return taken


async def answer(
    store: SessionStore, session: str, command: Command, version: int, body: bytes
) -> None:
    """Give the answer of a command that was taken."""
    done = msgspec.structs.replace(command, state="answered", answer=body)
    await store.put(session, COMMANDS, command.id, _encode(done), version, REMEMBERED_S)
