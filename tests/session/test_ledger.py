"""What a worker writes down while the store is away, and clients that take one another's place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from edge.session.claim import Claim
from edge.session.entries import NoteEntry, decode_entry
from edge.session.ledger import Ledger
from edge.session.store.interface import SessionStore
from edge.session.store.opening import open_store
from edge.session.store.settings import StoreSettings
from tests.session.store.support.valkey import Valkey

ROOM = 100


class Client:
    """A holder that says what became of it."""

    def __init__(self) -> None:
        self.happened: list[str] = []

    def superseded(self) -> None:
        self.happened.append("superseded")

    def deleted(self) -> None:
        self.happened.append("deleted")

    async def drain(self) -> None:
        self.happened.append("drained")

    async def command(self, op: str, body: bytes) -> bytes:
        return op.encode() + body


@asynccontextmanager
async def ledger_on(location: str) -> AsyncIterator[tuple[Ledger, SessionStore]]:
    async with open_store(location) as store:
        ledger = Ledger(store, StoreSettings(log_queue_entries=ROOM))
        yield ledger, store
        await ledger.stop()


async def test_what_has_no_room_is_counted_and_told_of_when_the_store_is_back(
    tmp_path: Path,
) -> None:
    """The store is away, nobody waits for it, and memory stays bounded."""
    valkey = Valkey(tmp_path, "--appendfsync", "always")
    valkey.start()
    try:
        async with ledger_on(valkey.url) as (ledger, store):
            await store.ensure("s")
            valkey.kill()
            for number in range(ROOM + 50):
                ledger.note("s", NoteEntry("n", str(number)))
            assert (ledger.counts.waiting, ledger.counts.dropped) == (ROOM, 50)
            valkey.start()
            async with asyncio.timeout(20):
                await ledger.flush(20)
            page = await store.read("s", 0)
            assert page is not None
            kept = [decode_entry(entry.body) for entry in page.entries]
            texts = [body.text for body in kept if isinstance(body, NoteEntry)]
            assert texts == [str(number) for number in range(ROOM)], "in order, the oldest stay"
            assert ledger.counts.waiting == 0
    finally:
        valkey.kill()


async def taken(ledger: Ledger, client: Client) -> Claim:
    claim = ledger.claim("s", "/transcribe", client)
    await claim.ready.wait()
    return claim


async def test_a_place_goes_to_whoever_comes_last_and_is_shared_when_it_goes_to_and_fro(
    tmp_path: Path,
) -> None:
    """Two bridges on two workers must not evict one another for ever."""
    location = str(tmp_path / "s.db")
    async with ledger_on(location) as (one, _), ledger_on(location) as (two, _):
        first = Client()
        claims = [await taken(one, first)]
        assert not first.happened
        clients = [first]
        for turn in range(6):
            client = Client()
            await asyncio.sleep(0.25)
            claims.append(await taken((two, one)[turn % 2], client))
            clients.append(client)
            assert clients[-2].happened == ["drained"] and not client.happened
        assert one.is_contested("s", "/transcribe") or two.is_contested("s", "/transcribe")
        assert not one.is_contested("s", "somebody")
        for number, claim in enumerate(claims):
            (one, two)[number % 2].release(claim)
