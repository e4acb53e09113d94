"""Items in every order the service may report them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from edge.asr.openai_events import BYTES_PER_MS, LogProb
from edge.asr.openai_items import MOST_OPEN_ITEMS, ItemBook

SOUND = b"\1\0"


def spoke(book: ItemBook, sound_ms: float, silence_ms: float = 0) -> None:
    book.sent(SOUND * int(sound_ms * BYTES_PER_MS / 2))
    book.sent(bytes(int(silence_ms * BYTES_PER_MS)))


def logprobs(*values: float) -> Sequence[LogProb]:
    return [LogProb(value) for value in values]


def test_confidence_is_the_exponential_of_the_mean_log_probability() -> None:
    book = ItemBook()
    first = book.delta("a", "one", logprobs(-0.2))
    second = book.delta("a", " two", logprobs(-0.4))
    assert first is not None and second is not None
    assert (first.confidence, second.confidence) == (math.exp(-0.2), math.exp(-0.30000000000000004))
    (final,) = book.completed("a", "one two", logprobs(-0.1, -0.3), None)
    assert final.confidence == math.exp(-0.2)


def test_without_probabilities_confidence_is_unknown() -> None:
    book = ItemBook()
    interim = book.delta("a", "one", None)
    assert interim is not None and interim.confidence is None


def test_blank_deltas_make_no_interim() -> None:
    assert ItemBook().delta("a", "  ", None) is None


def test_a_blank_transcript_still_says_how_far_audio_is_dealt_with() -> None:
    book = ItemBook()
    spoke(book, 500)
    book.speech_stopped("a", 450)
    book.committed("a")
    (final,) = book.completed("a", " ", None, None)
    assert (final.text, final.end_ms) == ("", 450)


def test_an_item_nobody_announced_spans_what_was_sent_since_the_last() -> None:
    book = ItemBook()
    spoke(book, 1000)
    (first,) = book.completed("a", "one", None, None)
    spoke(book, 500)
    (second,) = book.completed("b", "two", None, None)
    assert (first.start_ms, first.end_ms) == (0, 1000)
    assert (second.start_ms, second.end_ms) == (1000, 1500)


def test_a_service_without_committed_events_still_settles_a_commit() -> None:
    book = ItemBook()
    spoke(book, 1000)
    assert book.commit()
    assert not book.settled
    book.completed("a", "one", None, None)
    assert book.settled


def test_a_commit_is_answered_by_any_item_that_reaches_as_far() -> None:
    book = ItemBook()
    spoke(book, 1000.5)
    assert book.commit()
    book.speech_stopped("a", 1000)
    book.committed("a")
    book.completed("a", "one", None, None)
    assert book.settled


def test_a_commit_needs_sound_and_a_tenth_of_a_second_since_the_last_boundary() -> None:
    book = ItemBook()
    spoke(book, 0, 5000)
    assert not book.commit(), "silence only"
    book = ItemBook()
    spoke(book, 60)
    assert not book.commit(), "too short for the service"
    spoke(book, 60)
    assert book.commit()
    assert not book.commit(), "already asked for"
    book.commit_refused()
    assert book.settled


def test_a_final_waits_for_earlier_items_but_not_for_ever() -> None:
    book = ItemBook()
    spoke(book, 3000)
    for item, end_ms in (("a", 1000), ("b", 2000)):
        book.speech_stopped(item, end_ms)
        book.committed(item)
    assert book.completed("b", "two", None, None) == []
    assert book.holds_back
    (second,) = book.give_up_waiting()
    assert (second.item_id, second.end_ms, second.dealt_ms) == ("b", 2000, 0)
    assert not book.settled, "what was said first is still owed"
    (first,) = book.completed("a", "one", None, None)
    assert (first.item_id, first.end_ms, first.dealt_ms) == ("a", 1000, 2000)
    assert book.settled


def test_an_item_that_never_gets_its_text_keeps_its_audio_until_it_fails() -> None:
    book = ItemBook()
    spoke(book, 3000)
    for item, end_ms in (("a", 1000), ("b", 2000)):
        book.speech_stopped(item, end_ms)
        book.committed(item)
    book.completed("b", "two", None, None)
    book.give_up_waiting()
    book.failed("a")
    assert book.settled
    book.speech_stopped("c", 2900)
    book.committed("c")
    (third,) = book.completed("c", "three", None, None)
    assert (third.end_ms, third.dealt_ms) == (2900, None)


def test_the_padding_before_speech_reaches_into_no_item_before() -> None:
    """A service lets an item begin before its speech, and even before the end of the last one."""
    book = ItemBook()
    spoke(book, 3000)
    for item, start_ms, end_ms in (("a", 0, 1000), ("b", 800, 2000)):
        book.speech_started(item, start_ms)
        book.speech_stopped(item, end_ms)
        book.committed(item)
    (first,) = book.completed("a", "one", None, None)
    assert first.dealt_ms is None, "none of it is needed for the next"
    (second,) = book.completed("b", "two", None, None)
    assert (second.start_ms, second.end_ms, second.dealt_ms) == (1000, 2000, None)


def test_an_end_that_is_a_guess_keeps_the_items_audio() -> None:
    """A server of the same protocol that tells no times."""
    book = ItemBook()
    spoke(book, 2000)
    book.committed("a")
    (first,) = book.completed("a", "one", None, None)
    assert (first.end_ms, first.dealt_ms) == (2000, 0)
    spoke(book, 1000)
    book.committed("b")
    (second,) = book.completed("b", "two", None, None)
    assert (second.end_ms, second.dealt_ms) == (3000, 2000)


def test_items_without_an_end_are_bounded() -> None:
    book = ItemBook()
    for number in range(3 * MOST_OPEN_ITEMS):
        book.delta(f"item-{number}", "word", None)
        book.committed(f"item-{number}")
    assert book.evicted == 2 * MOST_OPEN_ITEMS
    last = 3 * MOST_OPEN_ITEMS - 1
    for number in range(2 * MOST_OPEN_ITEMS, last):
        book.failed(f"item-{number}")
    assert [final.item_id for final in book.completed(f"item-{last}", "x", None, None)]
    assert book.settled


names = st.sampled_from("abcd")
moments = st.floats(-10, 10_000)
events = st.one_of(
    st.tuples(st.just("sent"), st.integers(0, 300)),
    st.tuples(st.just("commit")),
    st.tuples(st.just("commit_refused")),
    st.tuples(st.just("speech_started"), names, moments),
    st.tuples(st.just("speech_stopped"), names, moments),
    st.tuples(st.just("committed"), names),
    st.tuples(st.just("delta"), names),
    st.tuples(st.just("completed"), names),
    st.tuples(st.just("failed"), names),
    st.tuples(st.just("give_up_waiting")),
)


@given(st.lists(events, max_size=60))
def test_no_order_of_events_breaks_it(sequence: list[tuple[str, ...]]) -> None:
    """Whatever a service sends: no exception, times in order, every final once."""
    book = ItemBook()
    completed = 0
    emitted: list[int] = []
    for name, *given_values in sequence:
        match name:
            case "sent":
                spoke(book, given_values[0], 10)  # type: ignore[arg-type]
            case "delta":
                book.delta(given_values[0], "x", None)
            case "completed":
                finals = book.completed(given_values[0], str(completed), None, None)
                completed += 1
                emitted += [int(final.text) for final in finals]
                assert all(0 <= one.start_ms <= one.end_ms <= book.sent_ms for one in finals)
            case "failed" | "give_up_waiting":
                released = getattr(book, name)(*given_values)
                emitted += [int(final.text) for final in released]
            case _:
                getattr(book, name)(*given_values)
    while book.holds_back:
        emitted += [int(final.text) for final in book.give_up_waiting()]
    assert len(emitted) == len(set(emitted))
    assert set(emitted) <= set(range(completed))


def test_a_probability_above_one_counts_as_certain() -> None:
    """A service that sends positive logarithms costs no more than a wrong number."""
    book = ItemBook()
    (final,) = book.completed("a", "one", logprobs(1e300), None)
    assert final.confidence == 1.0
