"""Chunks into the object store and the record: several workers, outages, workers that died."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest

from edge.errors import ObjectsUnavailable
from edge.meeting.book import INGEST, Book
from edge.meeting.desk import Chunk, Desk, Desks, Taken
from edge.meeting.keys import chunk_key
from edge.meeting.records import CHUNK_BYTES, Role
from edge.meeting.sequence import ChunkRefused
from edge.session.store.interface import SessionStore
from edge.session.store.opening import open_store
from tests.meeting.support.shelf import Shelf

SESSION = "面试 1"
MAX_JUMP = 3600


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SessionStore]:
    async with open_store(str(tmp_path / "sessions.db"), "process") as store:
        yield store


def pcm(seq: int, size: int = CHUNK_BYTES) -> bytes:
    return seq.to_bytes(2, "little") * (size // 2)


def chunk(seq: int, body: bytes | None = None) -> Chunk:
    return Chunk(seq=seq, timestamp_ms=1770811454091, pcm=pcm(seq) if body is None else body)


def desk(store: SessionStore, shelf: Shelf, role: Role = "teacher") -> Desk:
    """What another worker would have."""
    return Desks(store, shelf, MAX_JUMP).enter(SESSION, role)


def brief(taken: Taken) -> tuple[str, int, int, int]:
    ingest = taken.ingest
    return taken.status, ingest.last_seq, ingest.missing_chunks, ingest.duplicate_chunks


async def test_a_chunk_is_an_object_with_its_metadata_and_a_count(store: SessionStore) -> None:
    shelf = Shelf()
    taken = await desk(store, shelf).take(chunk(1))
    assert brief(taken) == ("stored", 1, 0, 0)
    assert taken.key == chunk_key(SESSION, "teacher", 1)
    assert shelf.bodies == {taken.key: pcm(1)}
    assert shelf.metadata[taken.key] == {
        "session_id": quote(SESSION),
        "stream_role": "teacher",
        "meeting_id": quote(SESSION),
        "seq": "1",
        "timestamp_ms": "1770811454091",
        "sample_rate": "16000",
        "channels": "1",
        "format": "pcm_s16le",
    }


async def test_w20_an_outage_leaves_the_counters_and_the_chunk_can_come_again(
    store: SessionStore,
) -> None:
    shelf = Shelf()
    at = desk(store, shelf)
    await at.take(chunk(1))
    before = await at.status()
    shelf.is_away = True
    with pytest.raises(ObjectsUnavailable):
        await at.take(chunk(2))
    assert await at.status() == before
    shelf.is_away = False
    assert brief(await at.take(chunk(2))) == ("stored", 2, 0, 0)


async def test_acks_go_on_when_only_the_listing_of_objects_is_away(store: SessionStore) -> None:
    """As with a spool: what a dead worker left is counted with a later status."""
    shelf = Shelf()
    shelf.bodies[chunk_key(SESSION, "teacher", 2)] = pcm(2)
    at = desk(store, shelf)
    shelf.is_listed = False
    assert brief(await at.take(chunk(1))) == ("stored", 1, 0, 0)
    assert (await at.status()).last_seq == 1
    shelf.is_listed = True
    assert (await at.status()).last_seq == 2
    assert brief(await at.take(chunk(3))) == ("stored", 3, 0, 0)


async def test_a_duplicate_does_not_need_the_object_store(store: SessionStore) -> None:
    shelf = Shelf()
    at = desk(store, shelf)
    await at.take(chunk(1))
    shelf.is_away = True
    assert brief(await at.take(chunk(1))) == ("duplicate", 1, 0, 1)


async def test_w23_a_short_last_chunk_is_stored(store: SessionStore) -> None:
    taken = await desk(store, Shelf()).take(chunk(1, pcm(1, 1000)))
    assert (taken.ingest.short, taken.ingest.bytes_stored) == ((1, 1000), 1000)


async def test_w22_a_refused_jump_names_its_code(store: SessionStore) -> None:
    with pytest.raises(ChunkRefused) as refused:
        await desk(store, Shelf()).take(chunk(10**9, b""))
    assert refused.value.code == "seq_jump"


async def test_w3_several_workers_count_each_chunk_once(store: SessionStore) -> None:
    shelf = Shelf()
    workers = [desk(store, shelf) for _ in range(3)]
    for worker in workers:
        await worker.status()
    await asyncio.gather(*(worker.take(chunk(seq)) for seq in range(1, 21) for worker in workers))
    ingest = await Book(store).read(SESSION, INGEST["teacher"])
    assert (ingest.last_seq, ingest.received_chunks, ingest.missing) == (20, 20, ())
    assert ingest.bytes_stored == 20 * CHUNK_BYTES == sum(map(len, shelf.bodies.values()))


async def test_a_chunk_that_another_worker_stored_with_other_audio_is_kept(
    store: SessionStore,
) -> None:
    shelf = Shelf()
    first, second = desk(store, shelf), desk(store, shelf)
    await second.status()
    await first.take(chunk(1))
    assert brief(await second.take(chunk(1, bytes(CHUNK_BYTES)))) == ("duplicate", 1, 0, 1)
    assert list(shelf.bodies.values()) == [pcm(1)]


async def test_w3_who_is_told_stored_has_its_own_audio_stored(store: SessionStore) -> None:
    """Two recorders of one role that number alike, on two workers."""
    shelf = Shelf()
    workers = [desk(store, shelf) for _ in range(3)]
    for worker in workers:
        await worker.status()
    for seq in range(1, 21):
        bodies = [bytes([number]) * CHUNK_BYTES for number in range(len(workers))]
        taken = await asyncio.gather(
            *(each.take(chunk(seq, body)) for each, body in zip(workers, bodies, strict=True))
        )
        told = [each.status for each in taken]
        assert told.count("stored") == 1
        assert shelf.bodies[taken[0].key] == bodies[told.index("stored")]


async def test_a_chunk_left_uncounted_gives_way_to_what_comes_now(store: SessionStore) -> None:
    shelf = Shelf()
    at = desk(store, shelf)
    await at.status()
    shelf.bodies[chunk_key(SESSION, "teacher", 1)] = pcm(7)
    assert brief(await at.take(chunk(1))) == ("stored", 1, 0, 0)
    assert shelf.bodies == {chunk_key(SESSION, "teacher", 1): pcm(1)}


async def test_what_a_dead_worker_stored_and_did_not_count_is_counted(
    store: SessionStore,
) -> None:
    shelf = Shelf()
    at = desk(store, shelf, "mixed")
    for seq in (1, 2, 5):
        await at.take(chunk(seq))
    for seq in (4, 6, 7):
        shelf.bodies[chunk_key(SESSION, "mixed", seq)] = pcm(seq)
    shelf.bodies[chunk_key(SESSION, "students", 9)] = pcm(9)
    ingest = await desk(store, shelf, "mixed").status()
    assert (ingest.last_seq, ingest.received_chunks, ingest.missing) == (7, 6, ((3, 3),))
    assert await Book(store).read(SESSION, INGEST["mixed"]) == ingest


async def test_the_same_chunk_again_after_a_lost_answer_is_stored_not_doubled(
    store: SessionStore,
) -> None:
    shelf = Shelf()
    at = desk(store, shelf)
    await at.status()
    shelf.bodies[chunk_key(SESSION, "teacher", 1)] = pcm(1)
    assert brief(await at.take(chunk(1))) == ("stored", 1, 0, 0)


async def test_w27_asking_creates_nothing(store: SessionStore) -> None:
    assert (await desk(store, Shelf()).status()).last_seq == 0
    assert await store.head(SESSION) is None
