"""Many processes on one store, some of them killed, on both engines."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable

import pytest

from edge.errors import HistoryLost
from edge.session.store.follower import Followers
from edge.session.store.interface import Draft, Entry, SessionStore
from tests.session.store.support.workers import (
    line_of,
    lines_of,
    start_opener,
    start_writer,
    tell,
)

MakeStore = Callable[[], SessionStore]


async def whole_log(store: SessionStore, session: str) -> list[Entry]:
    entries: list[Entry] = []
    while True:
        page = await store.read(session, len(entries))
        assert page is not None
        if not page.entries:
            return entries
        entries += page.entries


def assert_whole(entries: list[Entry], confirmed: list[str]) -> None:
    """Offsets are dense, and everything confirmed is where it was confirmed to be."""
    assert [entry.offset for entry in entries] == list(range(1, len(entries) + 1))
    for line in confirmed:
        offset, text = line.split()
        assert entries[int(offset) - 1].body == text.encode()


async def test_eight_processes_append_to_one_session(store: SessionStore, location: str) -> None:
    writers = [await start_writer(location, "s", f"t{n}", 50) for n in range(8)]
    said = [line for lines in await asyncio.gather(*map(lines_of, writers)) for line in lines]
    entries = await whole_log(store, "s")
    assert len(said) == len(entries) == 400
    assert_whole(entries, said)


async def test_nothing_confirmed_is_lost_when_writers_are_killed(
    store: SessionStore, location: str
) -> None:
    chance, said = random.Random(7), list[str]()
    for attempt in range(6):
        durability = "full" if attempt % 2 and not location.startswith("redis") else "normal"
        writer = await start_writer(location, "s", f"t{attempt}", 1_000_000, durability)
        assert writer.stdout is not None
        async with asyncio.timeout(20):
            await writer.stdout.readline()
        await asyncio.sleep(chance.uniform(0.0, 0.15))
        writer.send_signal(signal.SIGKILL)
        said += await lines_of(writer)
    assert said
    assert_whole(await whole_log(store, "s"), said)


async def test_a_process_that_was_stopped_and_replaced_writes_nothing(
    store: SessionStore, location: str
) -> None:
    writer = await start_writer(location, "s", "t", 20, when_told=True)
    async with asyncio.timeout(20):
        assert await line_of(writer) == "ready"
        tell(writer)
        assert await line_of(writer) == "1 t/0"
        writer.send_signal(signal.SIGSTOP)
        for _ in range(19):
            tell(writer)
        grant = await store.open_track("s", "t")
        last = await store.append(grant, [Draft("final", b"mine")])
        writer.send_signal(signal.SIGCONT)
        assert await lines_of(writer) == ["stale"] * 19
    entries = await whole_log(store, "s")
    assert [entry.offset for entry in entries] == [1, 2] and last == 2
    assert entries[1].fence == grant.fence > entries[0].fence


async def test_200_who_open_a_new_session_at_once_have_one(
    store: SessionStore, location: str
) -> None:
    workers = [await start_opener(location, "s", 50) for _ in range(4)]
    async with asyncio.timeout(20):
        for worker in workers:
            assert await line_of(worker) == "ready"
        for worker in workers:
            tell(worker)
        said = [line.split() for worker in workers for line in await lines_of(worker)]
    epochs, fences, offsets = zip(*said, strict=True)
    head = await store.head("s")
    assert head is not None and set(epochs) == {head.epoch}
    assert len(set(fences)) == 200
    assert sorted(map(int, offsets)) == list(range(1, 201)) and head.head == 200
    assert len(await store.sessions()) == 1


async def test_followers_through_10000_events_and_100_disconnects(
    store: SessionStore, make_store: MakeStore
) -> None:
    count, chance = 10_000, random.Random(3)
    grant = await store.open_track("s", "t")

    async def speak() -> None:
        for start in range(0, count, 20):
            await store.append(grant, [Draft("event", b"%d" % n) for n in range(start, start + 20)])

    async def listen(followers: Followers, disconnects: int) -> list[Entry]:
        got: list[Entry] = []
        leave_at = sorted(chance.sample(range(count - 100), disconnects))
        epoch = ""
        while len(got) < count:
            async with followers.follow("s", epoch, len(got)) as follower:
                assert follower.recovered or not epoch
                epoch = follower.epoch
                while len(got) < count:
                    got += await follower.next()
                    if leave_at and len(got) > leave_at[0]:
                        leave_at.pop(0)
                        break
        return got

    async with make_store() as other, asyncio.timeout(40):
        rooms = [Followers(store), Followers(other)]
        tasks = [asyncio.create_task(listen(rooms[n % 2], 25)) for n in range(4)]
        await speak()
        for got in await asyncio.gather(*tasks):
            assert [entry.offset for entry in got] == list(range(1, count + 1))
            assert [entry.body for entry in got] == [b"%d" % n for n in range(count)]


async def test_a_room_of_500_reads_the_store_once(store: SessionStore) -> None:
    grant = await store.open_track("s", "t")
    await store.append(grant, [Draft("event", b"x")] * 500)
    reads, read = 0, store.read

    async def counted(*args: object, **options: object) -> object:
        nonlocal reads
        reads += 1
        return await read(*args, **options)  # type: ignore[arg-type]

    store.read = counted  # type: ignore[method-assign, assignment]
    followers = Followers(store)

    async def join() -> int:
        async with followers.follow("s", grant.epoch, 300) as follower:
            entries = await follower.next()
            await asyncio.sleep(0.3)
            return len(entries)

    async with asyncio.timeout(2):
        assert set(await asyncio.gather(*(join() for _ in range(500)))) == {200}
    assert reads <= 2


async def test_a_follower_is_told_when_history_begins_anew(store: SessionStore) -> None:
    grant = await store.open_track("s", "t")
    await store.append(grant, [Draft("event", b"1")])
    followers = Followers(store)
    async with followers.follow("s", grant.epoch, 9) as follower:
        assert not follower.recovered
        assert follower.epoch != grant.epoch
        assert [entry.offset for entry in await follower.next()] == [1]
        await store.clear("s")
        with pytest.raises(HistoryLost) as lost:
            async with asyncio.timeout(5):
                await follower.next()
        assert lost.value.epoch != grant.epoch
