"""The embedded queue keeps order, leases and what it was given, whoever uses it and dies."""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from dispatch import Refused, Unreachable
from dispatch.local_queue import Keeping, LocalQueue, LocalRow
from tests.dispatch.support.targets import envelope_of, envelopes
from tests.support.disks import small_disk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


@pytest.fixture
async def queue(path: Path) -> AsyncIterator[LocalQueue]:
    async with LocalQueue(path) as opened:
        yield opened


def offsets(rows: list[LocalRow]) -> dict[str, list[int]]:
    found = defaultdict[str, list[int]](list)
    for row in rows:
        found[row.session].append(row.offset)
    return dict(found)


async def test_a_session_has_one_owner_until_its_lease_is_over(queue: LocalQueue) -> None:
    await queue.put([*envelopes("red", 3), *envelopes("green", 2)])
    assert offsets(await queue.claim("a", 100, 0.2)) == {"red": [1, 2, 3], "green": [1, 2]}
    assert await queue.claim("b") == []
    again: list[LocalRow] = []
    async with asyncio.timeout(5):
        while not again:
            again = await queue.claim("b")
    assert offsets(again) == {"red": [1, 2, 3], "green": [1, 2]}
    await queue.ack("a", again)
    assert await queue.outbox_size() == 5, "who lost the lease settles nothing"
    await queue.ack("b", again)
    assert await queue.outbox_size() == 0
    assert await queue.oldest_ms() is None


async def test_what_is_tried_again_waits_with_all_that_follows_it(queue: LocalQueue) -> None:
    await queue.put([*envelopes("red", 3), *envelopes("green", 1)])
    rows = await queue.claim("a")
    red = [row for row in rows if row.session == "red"]
    await queue.ack("a", [row for row in rows if row not in red[1:]])
    await queue.retry("a", red[1], 1.0)
    assert await queue.claim("b") == []
    started_s = time.monotonic()
    again: list[LocalRow] = []
    while not again:
        again = await queue.claim("b")
        await asyncio.sleep(0.01)
    assert time.monotonic() - started_s > 0.5
    assert [(row.offset, row.attempt) for row in again] == [(2, 1), (3, 0)]


async def test_rows_that_wait_by_another_clock_can_be_hastened(queue: LocalQueue) -> None:
    await queue.put(envelopes("red", 1))
    [row] = await queue.claim("a")
    await queue.retry("a", row, 3000.0)
    await queue.hasten(7200.0)
    assert await queue.claim("a") == []
    await queue.hasten(60.0)
    assert len(await queue.claim("a")) == 1


async def test_a_message_is_there_once_as_long_as_its_id_is_known(path: Path) -> None:
    async with LocalQueue(path, Keeping(retention_s=1.5)) as queue:
        for _ in range(2):
            assert await queue.put(envelopes("red", 3)) == 3
        await queue.ack("a", await queue.claim("a"))
        assert await queue.put([envelope_of("red", 3), envelope_of("red", 4)]) == 2
        rows = await queue.claim("a")
        assert offsets(rows) == {"red": [4]}
        await queue.ack("a", rows)
        async with asyncio.timeout(5):
            while not await queue.outbox_size():
                await queue.put([envelope_of("red", 3)])


async def test_no_more_ids_are_known_than_allowed(path: Path) -> None:
    async with LocalQueue(path, Keeping(max_seen=50)) as queue:
        for first in range(0, 1000, 10):
            await queue.put([envelope_of("red", first + n) for n in range(10)])
        await queue.put([envelope_of("red", 999), envelope_of("red", 0)])
        assert await queue.outbox_size() == 1001, "the first was forgotten, the last was not"
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM seen").fetchone()[0] <= 70
        assert db.execute("SELECT seen FROM counts").fetchone()[0] <= 70


async def test_a_full_queue_takes_what_it_has_room_for(path: Path) -> None:
    async with LocalQueue(path, Keeping(max_waiting=5)) as queue:
        assert await queue.put(envelopes("red", 3)) == 3
        assert await queue.put(envelopes("green", 3)) == 2
        with pytest.raises(Unreachable, match="full: 5 messages"):
            await queue.put([envelope_of("green", 3)])
        assert await queue.put(envelopes("red", 3)) == 3, "they are there already"
        await queue.ack("a", await queue.claim("a", 3))
        assert await queue.put([envelope_of("green", 3)]) == 1


async def test_dead_letters_are_kept_for_a_time_and_can_be_driven_again(path: Path) -> None:
    async with LocalQueue(path, Keeping(retention_s=1.5)) as queue:
        await queue.put(envelopes("red", 3))
        rows = await queue.claim("a")
        await queue.bury("a", rows[0], "no")
        await queue.ack("a", rows[1:])
        [letter] = await queue.dead_letters()
        assert (letter.row, letter.reason) == (rows[0], "no")
        assert await queue.redrive([letter]) == 1
        assert await queue.redrive([letter]) == 0
        [row] = await queue.claim("a")
        assert (row.offset, row.body, row.attempt) == (1, rows[0].body, 0)
        await queue.bury("a", row, "never")
        assert await queue.outbox_size() == 0
        assert len(await queue.dead_letters()) == 1
        async with asyncio.timeout(5):
            offset = 10
            while letters_in(path):
                await queue.put([envelope_of("green", offset := offset + 1)])


def letters_in(path: Path) -> int:
    """Whether or not anybody asks for them."""
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("SELECT count(*) FROM dead").fetchone()[0])


async def test_the_oldest_are_shed(queue: LocalQueue) -> None:
    await queue.put([*envelopes("red", 3), *envelopes("green", 3)])
    assert await queue.shed(4) == 2
    assert await queue.shed(4) == 0
    assert {letter.reason for letter in await queue.dead_letters()} == {"overflow"}
    assert offsets(await queue.claim("a")) == {"red": [3], "green": [1, 2, 3]}


async def test_an_id_without_an_offset_is_refused(queue: LocalQueue) -> None:
    for name in ("red", "red:", "red:-1", "red:1x", "green:1", "red:" + "9" * 19):
        with pytest.raises(Refused):
            await queue.put([type(envelope_of("red", 1))(name, "red", b"{}", 1, "", 0)])
    assert await queue.outbox_size() == 0


async def test_a_file_that_is_no_queue_is_unreachable_until_it_is_gone(path: Path) -> None:
    path.write_bytes(b"this is no database at all" * 100)
    async with LocalQueue(path) as queue:
        with pytest.raises(Unreachable, match="not a database"):
            await queue.put(envelopes("red", 1))
        path.unlink()
        async with asyncio.timeout(5):
            while True:
                try:
                    assert await queue.put(envelopes("red", 1)) == 1
                    break
                except Unreachable:
                    await asyncio.sleep(0.01)


async def test_a_full_disk_takes_nothing_and_loses_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        ballast = disk / "ballast"
        async with LocalQueue(disk / "queue.db") as queue:
            await queue.put(envelopes("red", 3))
            with ballast.open("wb") as file, pytest.raises(OSError, match="No space"):
                while True:
                    file.write(bytes(1 << 16))
                    file.flush()
            count = 3
            with pytest.raises(Unreachable, match="full"):
                while True:
                    await queue.put([envelope_of("red", count + 1, "x" * 4000)])
                    count += 1
            ballast.unlink()
            await queue.put([envelope_of("red", count + 1)])
            assert offsets(await queue.claim("a", 1000)) == {"red": list(range(1, count + 2))}


def put_forever(path: Path, session: str, until: int) -> None:
    """A process that dies in the middle of its work."""

    async def work() -> None:
        async with LocalQueue(path) as queue:
            for offset in range(1, until, 5):
                await queue.put([envelope_of(session, offset + n) for n in range(5)])

    asyncio.run(work())


async def test_processes_fill_and_empty_it_at_once_and_are_killed(path: Path) -> None:
    """One that is killed has put a beginning of its messages, in order and without a gap."""
    context = multiprocessing.get_context("spawn")
    names = ("red", "green")
    writers = [
        context.Process(target=put_forever, args=(path, name, 10**6 if name == "red" else 301))
        for name in names
    ]
    heard: dict[str, list[int]] = {name: [] for name in names}
    for writer in writers:
        writer.start()
    try:
        async with asyncio.timeout(40), LocalQueue(path) as queue:
            while len(heard["red"]) < 200 or len(heard["green"]) < 300 or writers[0].is_alive():
                rows = await queue.claim("a")
                for row in rows:
                    heard[row.session].append(row.offset)
                await queue.ack("a", rows)
                if len(heard["red"]) >= 200 and writers[0].is_alive():
                    writers[0].kill()
                    await asyncio.to_thread(writers[0].join)
                elif not rows:
                    await asyncio.sleep(0.01)
            while rows := await queue.claim("a"):
                for row in rows:
                    heard[row.session].append(row.offset)
                await queue.ack("a", rows)
    finally:
        for writer in writers:
            writer.kill()
            writer.join()
    assert heard["green"] == list(range(1, 301))
    assert heard["red"] == list(range(1, len(heard["red"]) + 1))
    assert len(heard["red"]) % 5 == 0


async def test_calls_of_many_tasks_are_committed_together_and_each_is_answered(
    queue: LocalQueue,
) -> None:
    counts = await asyncio.gather(
        *(queue.put(envelopes(f"s{number}", 2)) for number in range(300)),
        queue.put([]),
    )
    assert counts == [2] * 300 + [0]
    assert await queue.outbox_size() == 600
