"""Commands, presence and idempotency on top of the store, on both engines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from edge.errors import Conflict
from edge.session.store import commands, idempotency, presence
from edge.session.store.commands import Command
from edge.session.store.interface import SessionStore

MakeStore = Callable[[], SessionStore]


async def test_a_command_reaches_the_holder_and_is_done_once(
    store: SessionStore, make_store: MakeStore
) -> None:
    done: list[str] = []

    async def execute(command: Command) -> bytes:
        done.append(command.op)
        return command.body.upper()

    grant = await store.open_track("s", "alice")
    holder = asyncio.create_task(commands.serve(store, grant, execute))
    async with make_store() as other:
        command = Command("1", "alice", "end_turn", b"now")
        answers = await asyncio.gather(*(commands.send(other, "s", command) for _ in range(5)))
        assert answers == [b"NOW"] * 5
        assert await commands.send(other, "s", command) == b"NOW"
        with pytest.raises(Conflict):
            await commands.send(other, "s", Command("1", "alice", "clear", b""))
        assert await commands.send(other, "s", Command("2", "bob", "clear", b""), 0.2) is None
    holder.cancel()
    await asyncio.wait([holder])
    assert done == ["end_turn"]


async def test_two_holders_do_a_command_once(store: SessionStore, make_store: MakeStore) -> None:
    done: list[int] = []

    async def execute(command: Command) -> bytes:
        done.append(1)
        return b"ok"

    async with make_store() as other:
        tasks = [
            asyncio.create_task(commands.serve(each, await each.open_track("s", "t"), execute))
            for each in (store, other)
        ]
        for number in range(10):
            assert await commands.send(store, "s", Command(str(number), "t", "x", b"")) == b"ok"
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    assert len(done) == 10


async def test_presence_shows_who_is_alive(store: SessionStore) -> None:
    await presence.appear(store, "s", "a", b"1")
    await presence.appear(store, "s", "a", b"2")
    await presence.appear(store, "s", "b", b"3", alive_s=0.05)
    async with asyncio.timeout(5):
        while len(found := await presence.present(store, "s")) > 1:
            await asyncio.sleep(0.02)
    assert [(record.key, record.body) for record in found] == [("a", b"2")]
    await presence.leave(store, "s", "a")
    assert await presence.present(store, "s") == []


async def test_a_key_holds_one_answer(store: SessionStore) -> None:
    first = await idempotency.reserve(store, "s", "k", b"body")
    assert first.state == "new"
    assert (await idempotency.reserve(store, "s", "k", b"body")).state == "running"
    await idempotency.finish(store, "s", "k", b"body", first, b"answer")
    again = await idempotency.reserve(store, "s", "k", b"body")
    assert (again.state, again.answer) == ("done", b"answer")
    assert (await idempotency.reserve(store, "s", "k", b"another")).state == "other"


async def test_a_failed_request_gives_its_key_back(store: SessionStore) -> None:
    first = await idempotency.reserve(store, "s", "k", b"body")
    await idempotency.release(store, "s", "k", first)
    assert (await idempotency.reserve(store, "s", "k", b"body")).state == "new"
