"""The order of the inference threads, with an engine that decodes when the test says so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.asr.embedded.messages import (
    LARGEST_MESSAGE,
    Answer,
    Decode,
    Deframer,
    Kind,
    Outcome,
    frame,
)
from tests.asr.support.embedded import requires_embedded, wait_for

pytestmark = requires_embedded


class GatedEngine:
    """Decodes one segment for each permit; remembers the lengths it was given, in order."""

    def __init__(self) -> None:
        self.permits = threading.Semaphore(0)
        self.seen: list[int] = []

    def transcribe(self, samples, context, prefix, unwanted):
        from edge.asr.embedded.moonshine import Decoded

        self.seen.append(len(samples))
        while not self.permits.acquire(timeout=0.005):
            if unwanted():
                return None
        return Decoded("text", (), 0.0)


class Bench:
    """A pool, its engine, and the outcomes by request number."""

    def __init__(self, threads: int) -> None:
        from edge.asr.embedded.pool import DecodePool

        self.engine = GatedEngine()
        self.pool = DecodePool(self.engine, threads)
        self.outcomes: dict[int, Outcome] = {}

    def submit(self, number: int, kind: Kind, stream: int, segment: int = 0, owner: str = "w"):
        """Queue a request whose audio has ``number`` samples, so that the engine's log names it."""
        from edge.asr.embedded.pool import Job

        def answer(message: Answer) -> None:
            assert message.id not in self.outcomes
            self.outcomes[message.id] = message.outcome

        self.pool.submit(
            Job(owner, Decode(number, stream, segment, kind, bytes(number * 2)), answer)
        )

    def seen(self, count: int) -> list[int]:
        """The first ``count`` requests the engine took."""
        assert wait_for(lambda: len(self.engine.seen) >= count)
        return self.engine.seen[:count]

    def finish(self, count: int) -> None:
        """Let everything through and wait for ``count`` outcomes."""
        self.engine.permits.release(1000)
        assert wait_for(lambda: len(self.outcomes) >= count)


@pytest.fixture
def bench() -> Iterator[Callable[[int], Bench]]:
    made: list[Bench] = []

    def make(threads: int) -> Bench:
        made.append(Bench(threads))
        return made[-1]

    yield make
    for each in made:
        each.pool.stop()


def test_finals_go_before_interims_that_came_earlier(bench):
    one = bench(1)
    one.submit(1, Kind.FINAL, stream=1)
    one.seen(1)
    one.submit(2, Kind.INTERIM, stream=2)
    one.submit(3, Kind.FINAL, stream=3)
    one.submit(4, Kind.SPECULATIVE, stream=4)
    one.finish(4)
    assert one.seen(4) == [1, 3, 4, 2]
    assert set(one.outcomes.values()) == {Outcome.DONE}


def test_one_of_several_threads_is_kept_for_finals(bench):
    two = bench(2)
    two.submit(1, Kind.INTERIM, stream=1)
    two.submit(2, Kind.INTERIM, stream=2)
    two.submit(3, Kind.FINAL, stream=3)
    assert sorted(two.seen(2)) == [1, 3]
    two.finish(3)


def test_a_final_takes_the_place_of_what_its_segment_asked_before(bench):
    one = bench(1)
    one.submit(1, Kind.FINAL, stream=9)
    one.seen(1)
    one.submit(2, Kind.INTERIM, stream=1)
    one.submit(3, Kind.FINAL, stream=1)
    assert one.outcomes == {2: Outcome.SKIPPED}
    one.submit(4, Kind.SPECULATIVE, stream=1, segment=1)
    one.submit(5, Kind.INTERIM, stream=1, segment=1)
    assert one.outcomes == {2: Outcome.SKIPPED, 4: Outcome.SKIPPED}
    one.finish(5)
    assert one.seen(3) == [1, 3, 5]


def test_a_running_interim_is_given_up_for_its_final(bench):
    one = bench(1)
    one.submit(1, Kind.INTERIM, stream=1)
    one.seen(1)
    one.submit(2, Kind.FINAL, stream=1)
    assert one.seen(2) == [1, 2]
    assert one.outcomes == {1: Outcome.SKIPPED}
    one.finish(2)


def test_an_interim_of_a_later_segment_leaves_the_final_alone(bench):
    one = bench(1)
    one.submit(1, Kind.FINAL, stream=9)
    one.seen(1)
    one.submit(2, Kind.SPECULATIVE, stream=1, segment=0)
    one.submit(3, Kind.INTERIM, stream=1, segment=1)
    one.finish(3)
    assert one.outcomes[2] is Outcome.DONE


def test_an_interim_that_waited_too_long_is_skipped(bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edge.asr.embedded.pool.LONGEST_INTERIM_WAIT_S", 0.0)
    one = bench(1)
    one.submit(1, Kind.FINAL, stream=9)
    one.seen(1)
    one.submit(2, Kind.INTERIM, stream=1)
    one.finish(2)
    assert one.outcomes == {1: Outcome.DONE, 2: Outcome.SKIPPED}


def test_finals_beyond_the_bound_are_refused_at_once(bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edge.asr.embedded.pool.MOST_WAITING_FINALS", 2)
    one = bench(1)
    one.submit(1, Kind.FINAL, stream=1)
    one.seen(1)
    for number in (2, 3, 4):
        one.submit(number, Kind.FINAL, stream=number)
    assert one.outcomes == {4: Outcome.REFUSED}
    one.finish(4)


def test_a_worker_that_left_is_not_decoded_for(bench):
    one = bench(1)
    one.submit(1, Kind.FINAL, stream=1, owner="gone")
    one.seen(1)
    one.submit(2, Kind.FINAL, stream=2, owner="gone")
    one.submit(3, Kind.FINAL, stream=3, owner="here")
    one.pool.forget("gone")
    assert one.seen(2) == [1, 3]
    one.finish(2)
    assert one.outcomes == {1: Outcome.SKIPPED, 3: Outcome.DONE}


def test_one_bad_segment_fails_alone(bench):
    one = bench(1)
    one.engine.transcribe, good = None, one.engine.transcribe
    one.submit(1, Kind.FINAL, stream=1)
    assert wait_for(lambda: 1 in one.outcomes)
    one.engine.transcribe = good
    one.submit(2, Kind.FINAL, stream=2)
    one.finish(2)
    assert one.outcomes == {1: Outcome.FAILED, 2: Outcome.DONE}


@given(st.lists(st.binary(max_size=40), max_size=8), st.data())
def test_messages_survive_any_cut_of_the_byte_stream(bodies: list[bytes], data: st.DataObject):
    stream = b"".join(b"".join(frame(body)) for body in bodies)
    deframer, found, at = Deframer(), [], 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        found += deframer.feed(stream[at : at + size])
        at += size
    assert found == bodies


def test_a_message_announced_as_too_long_is_refused_before_it_is_collected():
    with pytest.raises(ValueError, match="exceeds"):
        list(Deframer().feed((LARGEST_MESSAGE + 1).to_bytes(4, "big")))
