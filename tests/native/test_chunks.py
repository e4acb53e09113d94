"""Frames of any size become chunks of one size, and nothing is lost or doubled on the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from _native.chunks import ChunkIntake
from _native.frame_writer import encode_masked
from _native.frames import BINARY, TEXT, Decoder

CHUNK_BYTES = 64


@given(st.lists(st.binary(max_size=200)), st.lists(st.booleans()))
def test_chunks_and_rests_are_the_stream(frames: list[bytes], flushes: list[bool]) -> None:
    """In order, whatever the sizes; a rest is whole samples, half a sample waits."""
    intake = ChunkIntake(CHUNK_BYTES)
    pieces: list[bytes] = []
    flushing = iter(flushes)
    for frame in frames:
        intake.put(frame)
        assert all(len(chunk) == CHUNK_BYTES for chunk in intake.chunks)
        pieces += intake.chunks
        intake.chunks.clear()
        if next(flushing, False):
            rest = intake.flush()
            assert len(rest) % 2 == 0
            assert len(rest) < CHUNK_BYTES
            pieces.append(rest)
    pieces.append(intake.flush())
    whole = b"".join(frames)
    assert b"".join(pieces) == whole[: len(whole) // 2 * 2]
    assert intake.size == len(whole)


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=300)), max_size=20), st.integers(1, 90))
def test_the_short_way_is_the_long_way(messages: list[tuple[bool, bytes]], size: int) -> None:
    """Frames are taken as they are decoded; texts are left to the receiver, in their order."""
    stream = b"".join(
        encode_masked(TEXT if is_text else BINARY, b"t" * len(data) if is_text else data, b"abcd")
        for is_text, data in messages
    )
    intake, decoder = ChunkIntake(CHUNK_BYTES), Decoder(1000)
    texts = 0
    for at in range(0, len(stream), size):
        data = stream[at : at + size]
        items = decoder.decode(data, 1, intake)
        while True:
            for opcode, payload in items:
                texts += opcode == TEXT
                if opcode == BINARY:
                    intake.put(payload)
            if not decoder.pending:
                break
            items = decoder.decode(b"", 1, intake)
    audio = b"".join(data for is_text, data in messages if not is_text)
    assert (b"".join(intake.chunks) + intake.flush()) == audio[: len(audio) // 2 * 2]
    assert texts == sum(is_text for is_text, _ in messages)


def test_a_chunk_is_a_whole_number_of_samples() -> None:
    for size in (0, 1, 3, -2):
        with pytest.raises(ValueError, match="whole number of samples"):
            ChunkIntake(size)
