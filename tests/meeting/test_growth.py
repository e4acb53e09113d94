"""The thousandth chunk and the thousandth utterance cost what the tenth did."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edge.meeting.book import Book
from edge.meeting.desk import Chunk, Desks
from edge.meeting.progress import Progress
from edge.meeting.records import CHUNK_BYTES, MAX_SAMPLES, Utterance
from edge.session.store.interface import SessionStore
from edge.session.store.opening import open_store
from tests.meeting.support.shelf import Shelf

SESSION = "growth"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SessionStore]:
    async with open_store(str(tmp_path / "sessions.db"), "process") as store:
        yield store


@pytest.fixture
def written(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each record that is written to the store."""
    sizes: list[int] = []
    put = store.put

    async def counting(
        scope: str, family: str, key: str, body: bytes, *rest: Any, **named: Any
    ) -> int:
        sizes.append(len(body))
        return await put(scope, family, key, body, *rest, **named)

    monkeypatch.setattr(store, "put", counting)
    return sizes


async def test_w25_w26_a_chunk_costs_one_object_and_one_small_record_however_long_the_meeting(
    store: SessionStore, written: list[int]
) -> None:
    shelf = Shelf()
    desk = Desks(store, shelf, 3600).enter(SESSION, "teacher")
    for seq in range(1, 1001):
        await desk.take(Chunk(seq=seq, timestamp_ms=seq, pcm=bytes(CHUNK_BYTES)))
        assert (len(written), len(shelf.bodies)) == (seq, seq)
    assert written[999] - written[9] < 20
    assert max(written) < 1000


async def test_w25_what_an_utterance_writes_of_its_role_is_bounded(
    store: SessionStore, written: list[int]
) -> None:
    progress = Progress(Book(store))
    for seq in range(1, 2 * MAX_SAMPLES + 1):
        progress.heard(said(seq), seq)
        await progress.written(SESSION, "teacher")
    assert len(written) == 2 * MAX_SAMPLES
    assert written[-1] - written[MAX_SAMPLES] < 20
    assert max(written) < 3000


def said(seq: int) -> Utterance:
    return Utterance(
        utterance_id=f"{SESSION}-{seq}",
        session_id=SESSION,
        stream_role="teacher",
        text="something",
        start_seq=seq,
        end_seq=seq,
        start_ms=1000 * seq - 1000,
        end_ms=1000 * seq,
        duration_ms=1000,
        asr_model="model",
        asr_provider="embedded",
        confidence=None,
        created_at="2026-02-11T12:00:00.000Z",
        latency_ms=300,
    )
