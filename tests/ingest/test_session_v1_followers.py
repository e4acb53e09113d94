"""Followers of a session over edge.session.v1: nothing missing, nothing twice, whoever is slow."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from edge.session.entries import Part, encode_passing
from edge.session.store.interface import SessionStore
from edge.session.store.opening import open_store
from tests.ingest.support.session import Author, Message, SessionClient, client
from tests.session.store.support.valkey import Valkey
from tests.support.server import Server, running

EVENTS = 10_000
DISCONNECTS = 100


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, str]]:
    """Two workers and where their store is."""
    folder: Path = tmp_path_factory.mktemp("store")
    valkey = Valkey(folder) if request.param == "redis" else None
    if valkey:
        valkey.start()
    location = valkey.url if valkey else str(folder / "sessions.db")
    environment = {"EDGESCRIBE_STORE": location, "ENABLE_DUMMY_PROVIDER": "true"}
    try:
        with running("--workers", "2", environment=environment) as server:
            yield server, location
    finally:
        if valkey:
            valkey.kill()


@pytest.fixture
async def store(gateway: tuple[Server, str]) -> AsyncIterator[SessionStore]:
    async with open_store(gateway[1]) as opened:
        yield opened


@pytest.fixture
def server(gateway: tuple[Server, str]) -> Server:
    return gateway[0]


class Page:
    """A page that follows a session, loses its connection now and then, and keeps what it saw."""

    def __init__(self, server: Server, session: str) -> None:
        self._server = server
        self._session = session
        self.offsets: list[int] = []
        self.welcomes: list[Message] = []

    async def follow(self, last: int, patience: list[int]) -> None:
        """Follow up to the offset ``last``; hang up after each of the numbers of events given."""
        while not self.offsets or self.offsets[-1] < last:
            page = await SessionClient.open(self._server, f"session={self._session}")
            resume = {}
            if self.welcomes:
                seen = self.offsets[-1] if self.offsets else self.welcomes[0]["offset"]
                resume = {"resume": {"epoch": self.welcomes[0]["epoch"], "offset": seen}}
            self.welcomes.append(await page.hello(**resume))
            wanted = patience.pop() if patience else EVENTS * 10

            def done(page: SessionClient = page, wanted: int = wanted) -> bool:
                offsets = page.offsets
                return len(offsets) >= wanted or (bool(offsets) and offsets[-1] >= last)

            await page.until(done, 30)
            await page.lose()
            self.offsets += page.offsets


async def test_no_gap_and_no_duplicate_however_often_the_connection_is_lost(
    server: Server, store: SessionStore
) -> None:
    session = f"lossy-{random.random()}"
    author = await Author.open(store, session)
    await author.say()
    chance = random.Random(5)
    pages = [Page(server, session) for _ in range(4)]
    share = DISCONNECTS // len(pages)
    following = [
        asyncio.create_task(
            page.follow(EVENTS, [chance.randint(1, EVENTS // share) for _ in range(share)])
        )
        for page in pages
    ]
    while not all(page.welcomes for page in pages):
        await asyncio.sleep(0.01)
    while author.turn < EVENTS:
        await author.say(min(chance.randint(1, 20), EVENTS - author.turn))
    await asyncio.gather(*following)
    for page in pages:
        first = page.welcomes[0]["offset"]
        assert page.offsets == list(range(first + 1, EVENTS + 1))
        assert [welcome["recovered"] for welcome in page.welcomes[1:]] == [True] * (
            len(page.welcomes) - 1
        )


async def test_a_first_connection_gets_all_finals_in_pages(
    server: Server, store: SessionStore
) -> None:
    author = await Author.open(store, "long")
    await author.say(900)
    async with client(server, "session=long") as page:
        welcome = await page.hello()
        assert (welcome["recovered"], welcome["offset"]) == (False, 900)
        await page.until(lambda: page.of("snapshot") and not page.of("snapshot")[-1]["more"])
        pages = [welcome["snapshot"], *page.of("snapshot")]
        assert [one["more"] for one in pages] == [True] * (len(pages) - 1) + [False]
        finals = [final for one in pages for final in one["finals"]]
        assert [final["o"] for final in finals] == list(range(1, 901))
        assert finals[0]["k"] == "final" and finals[0]["data"]["text"] == "sentence 1"
        await author.say()
        await page.until(lambda: page.offsets == [901])


async def test_an_offset_beyond_the_head_begins_a_new_epoch(
    server: Server, store: SessionStore
) -> None:
    author = await Author.open(store, "beyond")
    await author.say(3)
    head = await store.head("beyond")
    assert head is not None
    async with client(server, "session=beyond") as page:
        welcome = await page.hello(resume={"epoch": head.epoch, "offset": 99})
        assert not welcome["recovered"] and welcome["epoch"] != head.epoch
        assert [final["o"] for final in welcome["snapshot"]["finals"]] == [1, 2, 3]


async def test_another_epoch_is_not_recovered(server: Server, store: SessionStore) -> None:
    author = await Author.open(store, "other")
    await author.say(2)
    async with client(server, "session=other") as page:
        welcome = await page.hello(resume={"epoch": "long-ago", "offset": 1})
        assert not welcome["recovered"] and len(welcome["snapshot"]["finals"]) == 2


async def test_a_cleared_history_is_said_to_who_follows(
    server: Server, store: SessionStore
) -> None:
    author = await Author.open(store, "cleared")
    await author.say(2)
    async with client(server, "session=cleared") as page:
        first = await page.hello()
        await store.clear("cleared")
        await page.until(lambda: len(page.of("welcome")) == 2)
        again = page.of("welcome")[1]
        assert again["epoch"] != first["epoch"]
        assert (again["recovered"], again["snapshot"]["finals"]) == (False, [])
        await (await Author.open(store, "cleared")).say()
        await page.until(lambda: page.offsets == [3])


async def test_a_deleted_session_closes_who_follows_and_who_comes(
    server: Server, store: SessionStore
) -> None:
    await (await Author.open(store, "deleted")).say()
    async with client(server, "session=deleted") as page:
        await page.hello()
        await store.delete("deleted")
        assert (await page.closed())[0] == 4004
    async with client(server, "session=deleted") as page:
        await page.send("hello")
        assert (await page.closed())[0] == 4004


async def test_followers_see_what_is_being_said_as_often_as_they_like_and_not_too_late(
    server: Server, store: SessionStore
) -> None:
    author = await Author.open(store, "live")
    await author.say()

    def speak(turn: int, rev: int) -> None:
        store.publish("live", encode_passing(Part("anna", turn, rev, f"so far {rev}")))

    async with client(server, "session=live") as often, client(server, "session=live") as seldom:
        await often.hello(conflate_ms=0)
        await seldom.hello(conflate_ms=60_000)
        for rev in range(1, 6):
            speak(2, rev)
            await often.until(
                lambda rev=rev: often.of("part") and often.of("part")[-1]["rev"] == rev
            )
        speak(3, 1)
        await often.until(lambda: often.of("part")[-1]["turn"] == 3)
        await author.say(2)
        await often.until(lambda: len(often.offsets) == 2)
        await seldom.until(lambda: len(seldom.offsets) == 2)
        assert [part["rev"] for part in seldom.of("part")] == [1]
        speak(3, 2)
        speak(4, 1)
        await often.until(lambda: often.of("part")[-1]["turn"] == 4)
        shown = [(part["turn"], part["rev"]) for part in often.of("part")]
        assert shown == [*((2, rev) for rev in range(1, 6)), (3, 1), (4, 1)]


async def test_a_slow_follower_gets_no_gap_and_then_4008_and_delays_nobody(
    server: Server, store: SessionStore
) -> None:
    author = await Author.open(store, "slow")
    await author.say()
    slow_socket = socket.create_connection(("127.0.0.1", server.port))
    slow_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    async with client(server, "session=slow") as quick:
        await quick.hello()
        slow = await SessionClient.open(server, "session=slow", sock=slow_socket)
        await slow.hello()
        await slow.stop_reading()
        text = "x" * 20_000
        delays_s = []
        for _ in range(450):
            said_s = time.monotonic()
            last = await author.say(1, text)
            await quick.until(lambda last=last: quick.offsets and quick.offsets[-1] == last)
            delays_s.append(time.monotonic() - said_s)
        slow.read_on()
        assert (await slow.closed())[0] == 4008
        assert slow.offsets == list(range(2, 2 + len(slow.offsets)))
        assert len(slow.offsets) < len(delays_s)
        assert sorted(delays_s)[len(delays_s) // 2] < 0.25
