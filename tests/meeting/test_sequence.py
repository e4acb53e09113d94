"""The numbers of chunks: what is stored, what is missing, what came twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.meeting.records import CHUNK_BYTES, Ingest
from edge.meeting.sequence import MOST_GAPS, ChunkRefused, judge, repeat, store

JUMP = 3600


def take(ingest: Ingest, seq: int, size: int = CHUNK_BYTES) -> tuple[str, Ingest]:
    try:
        verdict = judge(ingest, seq, JUMP)
    except ChunkRefused as refused:
        return refused.code, ingest
    return verdict, store(ingest, seq, size) if verdict == "new" else repeat(ingest)


def counts(ingest: Ingest) -> tuple[int, int, int]:
    return ingest.last_seq, ingest.missing_chunks, ingest.duplicate_chunks


def test_w20_the_table_of_the_protocol_but_that_a_late_chunk_fills_its_gap() -> None:
    ingest = Ingest()
    for seq, verdict, then in [
        (1, "new", (1, 0, 0)),
        (1, "duplicate", (1, 0, 1)),
        (5, "new", (5, 3, 1)),
        (3, "new", (5, 2, 1)),
        (3, "duplicate", (5, 2, 2)),
        (6, "new", (6, 2, 2)),
    ]:
        found, ingest = take(ingest, seq)
        assert (seq, found, counts(ingest)) == (seq, verdict, then)
    assert ingest.missing == ((2, 2), (4, 4))
    assert ingest.bytes_stored == ingest.received_chunks * CHUNK_BYTES == 4 * CHUNK_BYTES


def test_w22_a_chunk_far_ahead_is_refused_and_poisons_nothing() -> None:
    _, ingest = take(Ingest(), 1)
    assert take(ingest, 10**9) == ("seq_jump", ingest)
    assert take(ingest, 1 + JUMP + 1) == ("seq_jump", ingest)
    verdict, far = take(ingest, 1 + JUMP)
    assert (verdict, far.missing_chunks) == ("new", JUMP - 1)
    assert take(Ingest(), JUMP + 1)[0] == "seq_jump"


def test_w23_the_last_chunk_may_be_short_and_the_next_stream_goes_on_after_it() -> None:
    _, ingest = take(Ingest(), 1)
    _, ingest = take(ingest, 2, 1000)
    assert (ingest.short, ingest.bytes_stored) == ((2, 1000), CHUNK_BYTES + 1000)
    _, ingest = take(ingest, 3)
    assert (ingest.last_seq, ingest.short) == (3, (2, 1000))


def test_gaps_are_bounded() -> None:
    ingest = Ingest()
    for seq in range(2, 2 * MOST_GAPS + 2, 2):
        ingest = store(ingest, seq, CHUNK_BYTES)
    last = ingest.last_seq
    assert take(ingest, last + 2) == ("too_many_gaps", ingest)
    assert take(ingest, last + 1)[0] == "new"
    verdict, healed = take(ingest, 1)
    assert (verdict, take(healed, last + 2)[0]) == ("new", "new")


@given(st.lists(st.integers(1, 60), max_size=150))
def test_w20_whatever_the_order_the_counters_equal_the_set_of_stored_numbers(
    seqs: list[int],
) -> None:
    ingest, held = Ingest(), set[int]()
    for seq in seqs:
        verdict, ingest = take(ingest, seq)
        assert verdict == ("duplicate" if seq in held else "new")
        held.add(seq)
    last = max(held, default=0)
    assert ingest.last_seq == last
    assert ingest.received_chunks == len(held)
    assert ingest.duplicate_chunks == len(seqs) - len(held)
    assert ingest.missing_chunks == last - len(held)
    assert ingest.bytes_stored == len(held) * CHUNK_BYTES
    everything = range(1, last + 1)
    assert ingest.stored(1, last + 5) == [seq for seq in everything if seq in held]
    assert list(ingest.missing) == sorted(ingest.missing)
    assert all(b[0] - a[1] >= 2 for a, b in zip(ingest.missing, ingest.missing[1:], strict=False))
