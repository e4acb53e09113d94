"""Stored chunks as WAV files."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import pytest

from edge.meeting.audio import Recording, read
from edge.meeting.book import INGEST
from edge.meeting.records import CHUNK_BYTES, Ingest
from edge.meeting.wav import HEADER_BYTES, header, wav
from tests.meeting.support.stored import SESSION, Worker, worker


def chunk(number: int, size: int = CHUNK_BYTES) -> bytes:
    """Audio that says which it is."""
    return bytes([number]) * size


async def file_of(w: Worker, from_seq: int = 1, to_seq: int | None = None) -> tuple[int, bytes]:
    """The length that is promised, and the samples of a file that the standard library reads."""
    ingest = await w.book.read(SESSION, INGEST["teacher"])
    recording = Recording(w.objects, SESSION, "teacher", ingest, from_seq, to_seq)
    body = b"".join([piece async for piece in recording.body()])
    assert len(body) == recording.size_bytes
    with wave.open(io.BytesIO(body)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        return recording.size_bytes, file.readframes(file.getnframes())


async def test_a_file_holds_all_chunks_in_order_with_silence_for_those_that_are_missing(
    tmp_path: Path,
) -> None:
    async with worker(tmp_path) as w:
        await w.speak(b"".join(chunk(n) for n in range(1, 20)) + chunk(20, 800), without={3, 12})
        size, samples = await file_of(w)
    said = [b"" if n in (3, 12) else chunk(n) for n in range(1, 20)]
    assert samples == b"".join(part or bytes(CHUNK_BYTES) for part in said) + chunk(20, 800)
    assert size == HEADER_BYTES + 19 * CHUNK_BYTES + 800


async def test_a_file_of_a_part_ends_with_what_is_stored(tmp_path: Path) -> None:
    async with worker(tmp_path) as w:
        await w.speak(b"".join(chunk(n) for n in range(1, 6)))
        assert (await file_of(w, 2, 3))[1] == chunk(2) + chunk(3)
        assert (await file_of(w, 5, 99))[1] == chunk(5)
        assert (await file_of(w, 9))[1] == b""
        assert (await file_of(w, 4, 2))[1] == b""


async def test_a_chunk_whose_object_is_lost_or_damaged_is_as_long_as_it_was(
    tmp_path: Path,
) -> None:
    async with worker(tmp_path) as w:
        await w.speak(chunk(1) + chunk(2) + chunk(3))
        first, second, _ = await w.objects.find("sessions/")
        await w.objects.remove([first])
        await w.objects.put(second, chunk(2, 100))
        ingest = await w.book.read(SESSION, INGEST["teacher"])
        piece = await read(w.objects, SESSION, "teacher", ingest, 1, 9)
    assert piece.pcm == bytes(CHUNK_BYTES) + chunk(2, 100).ljust(CHUNK_BYTES, b"\0") + chunk(3)
    assert piece.missing == (1,)


@pytest.mark.parametrize("size", [0, 2, 320_000])
def test_the_header_says_how_much_follows(size: int) -> None:
    with wave.open(io.BytesIO(wav(bytes(size)))) as file:
        assert file.getnframes() == size // 2
    assert len(header(size)) == HEADER_BYTES == 44


def test_a_file_is_never_longer_than_its_header_can_say() -> None:
    recording = Recording(None, "s", "mixed", Ingest(last_seq=10**6))  # type: ignore[arg-type]
    assert 0xFFFFFFFF - CHUNK_BYTES - HEADER_BYTES < recording.size_bytes <= 0xFFFFFFFF
