"""What every engine of the session store promises, on both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from edge.errors import Conflict, HistoryLost, SessionDeleted, StaleFence
from edge.session.store.follower import Followers
from edge.session.store.interface import Draft, SessionStore, Signal, shared_scope

MakeStore = Callable[[], SessionStore]


def final(text: str) -> Draft:
    return Draft("final", text.encode())


async def test_offsets_are_dense_and_entries_come_back_as_written(store: SessionStore) -> None:
    grant = await store.open_track("s", "alice")
    assert await store.append(grant, [final("one"), Draft("event", b"\x00\xff")]) == 2
    assert await store.note("s", [Draft("config", b"{}")]) == 3
    page = await store.read("s", 0)
    assert page is not None
    assert [(e.offset, e.kind, e.track, e.body) for e in page.entries] == [
        (1, "final", "alice", b"one"),
        (2, "event", "alice", b"\x00\xff"),
        (3, "config", "", b"{}"),
    ]
    assert {e.fence for e in page.entries} == {grant.fence, 0}
    assert page.head.head == 3 and page.head.epoch == grant.epoch and page.head.tail == 1
    again = await store.read("s", 1, 1)
    assert again is not None and [e.offset for e in again.entries] == [2]


async def test_reading_creates_nothing(store: SessionStore) -> None:
    assert await store.read("s", 0) is None
    assert await store.head("s") is None
    assert await store.resume("s", "e", 3) is None
    assert await store.records("s", "f") == []
    assert await store.sessions() == []


async def test_a_newer_holder_shuts_the_older_one_out(store: SessionStore) -> None:
    old = await store.open_track("s", "alice")
    await store.append(old, [final("1")])
    new = await store.open_track("s", "alice")
    other = await store.open_track("s", "bob")
    assert old.fence < new.fence < other.fence
    with pytest.raises(StaleFence):
        await store.append(old, [final("late")])
    assert await store.append(new, [final("2")]) == 2
    assert await store.append(other, [final("3")]) == 3


async def test_an_append_whose_answer_was_lost_is_not_done_twice(store: SessionStore) -> None:
    grant = await store.open_track("s", "alice")
    await store.append(grant, [final("1")])
    grant.batch, grant.acked = 0, 0
    assert await store.append(grant, [final("1")]) == 1
    assert await store.append(grant, [final("1")]) == 2


async def test_an_append_that_the_network_delivers_late_is_not_done_after_others(
    store: SessionStore,
) -> None:
    """It was repeated by another way, and what followed is in the log already."""
    grant = await store.open_track("s", "alice")
    late = msgspec.structs.replace(grant, turn=asyncio.Lock())
    for text in ("1", "2", "3"):
        await store.append(grant, [final(text)])
    with pytest.raises(StaleFence):
        await store.append(late, [final("1")])
    assert await store.append(grant, [final("4")]) == 4


async def test_a_session_cleared_starts_a_new_epoch(store: SessionStore) -> None:
    grant = await store.open_track("s", "alice")
    await store.append(grant, [final("1"), final("2")])
    head = await store.clear("s")
    assert head.epoch != grant.epoch and (head.tail, head.head) == (3, 2)
    with pytest.raises(HistoryLost):
        await store.append(grant, [final("3")])
    page = await store.read("s", 0)
    assert page is not None and page.entries == []
    assert await store.append(await store.open_track("s", "alice"), [final("3")]) == 3


async def test_who_has_seen_more_than_there_is_gets_a_new_epoch(store: SessionStore) -> None:
    grant = await store.open_track("s", "alice")
    await store.append(grant, [final("1"), final("2")])
    known = await store.resume("s", grant.epoch, 2)
    assert known is not None and known.recovered and known.head.epoch == grant.epoch
    other = await store.resume("s", "another", 1)
    assert other is not None and not other.recovered and other.head.epoch == grant.epoch
    beyond = await store.resume("s", grant.epoch, 3)
    assert beyond is not None and not beyond.recovered and beyond.head.epoch != grant.epoch
    with pytest.raises(HistoryLost):
        await store.append(grant, [final("3")])


@pytest.mark.parametrize("proof", ["acked", "fence"])
async def test_a_writer_that_knows_of_lost_history_says_so(store: SessionStore, proof: str) -> None:
    grant = await store.open_track("s", "alice")
    await store.append(grant, [final("1")])
    setattr(grant, proof, getattr(grant, proof) + 5)
    with pytest.raises(HistoryLost) as lost:
        await store.append(grant, [final("2")])
    head = await store.head("s")
    assert head is not None and head.epoch == lost.value.epoch != grant.epoch
    assert head.head == 1


async def test_records_change_by_compare_and_set(store: SessionStore) -> None:
    assert await store.put("s", "config", "k", b"1", 0) == 1
    with pytest.raises(Conflict) as conflict:
        await store.put("s", "config", "k", b"x", 0)
    assert (conflict.value.version, conflict.value.body) == (1, b"1")
    assert await store.put("s", "config", "k", b"2", 1) == 2
    assert await store.put("s", "config", "a", b"", 0) == 1
    assert [(r.key, r.version, r.body) for r in await store.records("s", "config")] == [
        ("a", 1, b""),
        ("k", 2, b"2"),
    ]
    with pytest.raises(Conflict):
        await store.drop("s", "config", "k", 1)
    await store.drop("s", "config", "k", 2)
    await store.drop("s", "config", "k", 2)
    assert await store.get("s", "config", "k") is None


async def test_one_of_many_wins_a_record(store: SessionStore) -> None:
    tries = [store.put("s", "once", "key", b"%d" % n, 0) for n in range(20)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(outcome == 1 for outcome in outcomes) == 1
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 19


async def test_a_record_expires(store: SessionStore) -> None:
    await store.put("s", "presence", "conn", b"here", 0, ttl_s=0.5)
    assert await store.get("s", "presence", "conn") is not None
    async with asyncio.timeout(5):
        while await store.records("s", "presence"):
            await asyncio.sleep(0.02)
    assert await store.put("s", "presence", "conn", b"back", 0) == 1


async def test_records_that_belong_to_no_session_make_none(store: SessionStore) -> None:
    await store.put(shared_scope("router"), "services", "db", b"x", 0)
    assert await store.sessions() == []
    assert len(await store.records(shared_scope("router"), "services")) == 1


async def test_a_deleted_session_takes_nothing_more(store: SessionStore) -> None:
    grant = await store.open_track("s", "alice")
    await store.append(grant, [final("1")], [(0, b"m")])
    await store.put("s", "config", "k", b"1", 0)
    assert await store.delete("s")
    assert not await store.delete("s")
    for late in (
        store.append(grant, [final("2")]),
        store.note("s", [Draft("event", b"")]),
        store.open_track("s", "alice"),
        store.put("s", "config", "k", b"2", 0),
    ):
        with pytest.raises(SessionDeleted):
            await late
    assert await store.read("s", 0) is None
    assert await store.records("s", "config") == []
    assert await store.sessions() == []
    assert await store.outbox_size() == 0
    assert await store.claim("w", 10) == []


async def test_sessions_are_listed_page_by_page(store: SessionStore) -> None:
    names = sorted(f"meeting {n} {{ü}}" for n in range(25))
    for name in names:
        await store.note(name, [Draft("event", b"")])
    seen: list[str] = []
    while page := await store.sessions(seen[-1] if seen else "", 10):
        seen += [info.name for info in page]
    assert seen == names


async def test_a_session_tells_where_it_stands_and_who_wrote(store: SessionStore) -> None:
    assert await store.detail("s") is None
    bob = await store.open_track("s", "bob")
    await store.open_track("s", "alice é")
    await store.append(bob, [final("one"), final("two")])
    detail = await store.detail("s")
    assert detail is not None
    assert [detail.info] == await store.sessions()
    assert detail.place == await store.head("s")
    assert (detail.info.head, detail.tracks) == (2, ("alice é", "bob"))
    await store.delete("s")
    assert await store.detail("s") is None


async def test_expiry_takes_no_more_sessions_than_it_is_told_to(store: SessionStore) -> None:
    for name in ("a", "b", "c"):
        await store.note(name, [Draft("event", b"x")])
    await asyncio.sleep(0.02)
    gone = await store.expire(0.01, limit=2)
    gone += await store.expire(0.01, limit=2)
    assert sorted(gone) == ["a", "b", "c"] and await store.expire(0.01, limit=2) == []


async def test_unchanged_sessions_expire(store: SessionStore) -> None:
    await store.note("old", [Draft("event", b"")])
    grant = await store.open_track("waiting", "a")
    await store.append(grant, [final("1")], [(0, b"m")])
    assert await store.expire(3600) == []
    await asyncio.sleep(0.06)
    await store.note("new", [Draft("event", b"")])
    assert await store.expire(0.05) == ["old"]
    assert [info.name for info in await store.sessions()] == ["new", "waiting"]


async def test_outbox_rows_go_out_in_order_and_once(store: SessionStore) -> None:
    for session in ("a", "b"):
        grant = await store.open_track(session, "t")
        for n in range(3):
            await store.append(grant, [final(str(n))], [(0, b"%d" % n)])
    rows = await store.claim("w1", 10)
    assert len(rows) == 6 == await store.outbox_size()
    for session in ("a", "b"):
        mine = [row for row in rows if row.session == session]
        assert [(row.offset, row.body, row.attempt) for row in mine] == [
            (1, b"0", 0),
            (2, b"1", 0),
            (3, b"2", 0),
        ]
    assert await store.claim("w2", 10) == []
    await store.ack("w1", rows)
    assert await store.outbox_size() == 0
    assert await store.claim("w2", 10) == []


async def test_a_lease_that_ended_lets_another_take_over(store: SessionStore) -> None:
    grant = await store.open_track("s", "t")
    await store.append(grant, [final("1")], [(0, b"m")])
    rows = await store.claim("dead", 10, lease_s=0.05)
    async with asyncio.timeout(5):
        while not (again := await store.claim("alive", 10)):
            await asyncio.sleep(0.02)
    await store.ack("dead", rows)
    assert await store.outbox_size() == 1
    await store.ack("alive", again)
    assert await store.outbox_size() == 0


async def test_a_failed_row_holds_back_its_session_only(store: SessionStore) -> None:
    for session in ("a", "b"):
        grant = await store.open_track(session, "t")
        await store.append(grant, [final("1"), final("2")], [(0, b"1"), (1, b"2")])
    rows = {row.session: row for row in reversed(await store.claim("w", 10))}
    await store.retry("w", rows["a"], 1.0)
    await store.ack("w", [rows["b"]])
    later = [row for row in await store.claim("w", 10) if row.session == "a"]
    assert later == []
    async with asyncio.timeout(5):
        while not (again := [r for r in await store.claim("w", 10) if r.session == "a"]):
            await asyncio.sleep(0.02)
    assert [(row.offset, row.attempt) for row in again] == [(1, 1), (2, 0)]


async def test_rows_that_came_during_a_lease_follow_it(store: SessionStore) -> None:
    grant = await store.open_track("s", "t")
    await store.append(grant, [final("1")], [(0, b"1")])
    rows = await store.claim("w", 10)
    await store.append(grant, [final("2")], [(0, b"2")])
    await store.ack("w", rows)
    assert [row.body for row in await store.claim("w", 10)] == [b"2"]


async def test_dead_letters_are_listed_and_driven_again(store: SessionStore) -> None:
    grant = await store.open_track("s", "t")
    await store.append(grant, [final("1"), final("2")], [(0, b"1"), (1, b"2")])
    rows = await store.claim("w", 10)
    await store.bury("w", rows[0], "refused")
    letters = await store.dead_letters()
    assert [(letter.row.body, letter.reason) for letter in letters] == [(b"1", "refused")]
    await store.ack("w", rows[1:])
    assert await store.redrive(letters) == 1
    assert await store.redrive(letters) == 0
    assert [row.body for row in await store.claim("w", 10)] == [b"1"]


async def test_an_outbox_that_overflows_gives_the_oldest_up(store: SessionStore) -> None:
    grant = await store.open_track("s", "t")
    for n in range(10):
        await store.append(grant, [final(str(n))], [(0, b"%d" % n)])
    assert await store.shed(4) == 6
    assert [row.body for row in await store.claim("w", 10)] == [b"6", b"7", b"8", b"9"]
    assert {letter.reason for letter in await store.dead_letters()} == {"overflow"}


async def test_an_overflow_takes_the_oldest_whichever_sessions_they_are_of(
    store: SessionStore,
) -> None:
    """One session said nearly all of the oldest, and goes on; others said a little, later."""
    grants = [await store.open_track(name, "t") for name in ("a", "b", "c", "d")]
    for n in range(100):
        await store.append(grants[0], [final(str(n))], [(0, b"old %d" % n)])
    await asyncio.sleep(0.01)
    for grant in grants * 3:
        await store.append(grant, [final("new")], [(0, b"new")])
    assert await store.shed(15) == 97
    assert [letter.row.body for letter in await store.dead_letters(200)] == [
        b"old %d" % n for n in range(97)
    ]
    assert await store.oldest_ms() is not None
    assert await store.outbox_size() == 15


async def test_other_workers_hear_within_30_ms(store: SessionStore, make_store: MakeStore) -> None:
    loop, delays_ms = asyncio.get_running_loop(), []
    async with make_store() as other:
        heard: asyncio.Queue[Signal] = asyncio.Queue()
        end = other.listen("s", heard.put_nowait)
        await other.listening("s")
        grant = await store.open_track("s", "t")
        for n in range(20):
            begun = loop.time()
            await store.append(grant, [final(str(n))])
            async with asyncio.timeout(5):
                while (await heard.get()).head < n + 1:
                    pass
            delays_ms.append((loop.time() - begun) * 1000)
        store.publish("s", b"interim")
        async with asyncio.timeout(5):
            assert (await heard.get()).body == b"interim"
        end()
    assert sorted(delays_ms)[10] < 30


async def test_a_follower_gets_what_was_and_what_comes(
    store: SessionStore, make_store: MakeStore
) -> None:
    grant = await store.open_track("s", "t")
    await store.append(grant, [final(str(n)) for n in range(1, 6)])
    async with make_store() as other, Followers(other).follow("s", grant.epoch, 2) as follower:
        assert follower.recovered
        got = [entry.offset for entry in await follower.next()]
        await store.append(grant, [final("6")])
        async with asyncio.timeout(5):
            got += [entry.offset for entry in await follower.next()]
        await store.clear("s")
        with pytest.raises(HistoryLost):
            async with asyncio.timeout(5):
                await follower.next()
    assert got == [3, 4, 5, 6]
