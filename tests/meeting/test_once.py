"""Idempotency keys: what is done once, for whom, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.meeting.once import Once, OtherRequest
from edge.session.store.idempotency import ANSWERS
from edge.session.store.interface import SessionStore
from edge.session.store.opening import open_store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SessionStore]:
    async with open_store(str(tmp_path / "sessions.db")) as opened:
        yield opened


class Counter:
    """Does something that can be counted, when it is let."""

    def __init__(self) -> None:
        self.done = 0
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.has_begun = asyncio.Event()

    async def act(self) -> bytes:
        self.has_begun.set()
        await self.may_end.wait()
        self.done += 1
        return b'{"done":%d}' % self.done


async def test_w28_a_repeated_request_gets_the_first_answer(store: SessionStore) -> None:
    once, counter = Once(store), Counter()
    assert await once.do("s", "teacher:k", b"body", counter.act) == (b'{"done":1}', False)
    assert await once.do("s", "teacher:k", b"body", counter.act) == (b'{"done":1}', True)
    assert await once.do("s", "students:k", b"body", counter.act) == (b'{"done":2}', False)
    assert await once.do("other", "teacher:k", b"body", counter.act) == (b'{"done":3}', False)


async def test_w28_a_key_with_another_body_is_refused(store: SessionStore) -> None:
    once, counter = Once(store), Counter()
    await once.do("s", "k", b"one", counter.act)
    with pytest.raises(OtherRequest):
        await once.do("s", "k", b"two", counter.act)
    assert counter.done == 1


async def test_w28_two_at_once_on_two_workers_do_it_once(store: SessionStore) -> None:
    counter = Counter()
    counter.may_end.clear()
    first = asyncio.create_task(Once(store).do("s", "k", b"body", counter.act))
    await counter.has_begun.wait()
    second = asyncio.create_task(Once(store).do("s", "k", b"body", counter.act))
    await asyncio.sleep(0)
    counter.may_end.set()
    assert await first == (b'{"done":1}', False)
    assert await second == (b'{"done":1}', True)


async def test_a_failure_leaves_the_key_free(store: SessionStore) -> None:
    once, counter = Once(store), Counter()

    async def fail() -> bytes:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await once.do("s", "k", b"body", fail)
    assert await once.do("s", "k", b"another", counter.act) == (b'{"done":1}', False)


async def test_a_client_that_goes_away_leaves_the_key_free(store: SessionStore) -> None:
    once, counter = Once(store), Counter()
    counter.may_end.clear()
    task = asyncio.create_task(once.do("s", "k", b"body", counter.act))
    await counter.has_begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await store.records("s", ANSWERS) == []
