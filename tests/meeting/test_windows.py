"""Windows of stored audio: which there are, what errors cost, what is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch.messages import decode_message
from edge.asr.funasr import FunASRRecognizer, FunASRSettings
from edge.asr.interface import Emit, Recognizer, RecognizerStream, StreamRequest
from edge.meeting.book import ASR, INGEST, PEOPLE
from edge.meeting.records import Asr, Ingest, People, Role, SpeakerSaid, encode, iso
from edge.meeting.spans import Span, backoff_ms, joined, next_span
from edge.meeting.view import WINDOWS, Views
from edge.session.claim import HOLDERS
from edge.session.entries import FinalEntry, SpeakerEntry, encode_entry
from edge.session.store.interface import Draft, now_ms
from tests.asr.fakes.common import Fault
from tests.asr.fakes.funasr_endpoint import KEY, RATE_HZ, FakeFunASR
from tests.asr.support.tones import sentence, silence
from tests.meeting.support.stored import SESSION, worker

SECOND = silence(1000, RATE_HZ)


def talk(*words: str) -> bytes:
    """A second for each: the word, and a pause; a blank one is silence."""
    seconds = (
        sentence(word, RATE_HZ) + silence(400, RATE_HZ) if word else SECOND for word in words
    )
    return b"".join(seconds)


def funasr(endpoint: FakeFunASR) -> FunASRRecognizer:
    values = {"funasr_api_key": KEY, "funasr_url": endpoint.address}
    return FunASRRecognizer(msgspec.convert(values, FunASRSettings))


@pytest.fixture
async def endpoint() -> AsyncIterator[FakeFunASR]:
    async with FakeFunASR(sentence_silence_ms=300) as service:
        yield service


@pytest.mark.parametrize(
    ("last_seq", "forced", "spans"),
    [
        (16, False, [(1, 10), (4, 13), (7, 16)]),
        (18, False, [(1, 10), (4, 13), (7, 16)]),
        (18, True, [(1, 10), (4, 13), (7, 16), (9, 18)]),
        (4, False, []),
        (4, True, [(1, 4)]),
        (10, True, [(1, 10)]),
        (0, True, []),
    ],
)
def test_w24_windows_end_a_hop_apart_and_a_run_that_was_asked_for_ends_with_the_audio(
    last_seq: int, forced: bool, spans: list[tuple[int, int]]
) -> None:
    ingest, done, found = Ingest(last_seq=last_seq), 0, []
    while (span := next_span(ingest, done, 10, 3, tail=forced)) is not None:
        found.append((span.first, span.last))
        done = span.last
    assert found == spans


def test_windows_without_any_audio_are_passed_over() -> None:
    ingest = Ingest(last_seq=4000, missing=((11, 3990),))
    assert next_span(ingest, 10, 10, 3, tail=True) == Span(4, 13)
    assert next_span(ingest, 19, 10, 3, tail=True) == Span(3982, 3991)


@given(
    gaps=st.sets(st.integers(1, 59)),
    window=st.integers(1, 12),
    hop=st.integers(1, 12),
    done=st.integers(0, 60),
)
def test_no_chunk_is_left_out_whatever_the_hop(
    gaps: set[int], window: int, hop: int, done: int
) -> None:
    """Chunk 60 is the last; each that is stored is in a window, and each window has one."""
    missing = runs(gaps)
    ingest, covered, start = Ingest(last_seq=60, missing=missing), set[int](), done
    while (span := next_span(ingest, done, window, hop, tail=True)) is not None:
        assert span.last > done and span.first >= 1
        assert ingest.stored(span.first, span.last)
        covered.update(range(span.first, span.last + 1))
        done = span.last
    if start == 0:
        assert set(range(1, 61)) - gaps <= covered


def runs(numbers: set[int]) -> tuple[tuple[int, int], ...]:
    """Numbers as first and last of each run."""
    firsts = sorted(number for number in numbers if number - 1 not in numbers)
    lasts = sorted(number for number in numbers if number + 1 not in numbers)
    return tuple(zip(firsts, lasts, strict=True))


def test_failures_make_windows_wait_twice_as_long_each_time() -> None:
    assert [backoff_ms(n) for n in range(1, 9)] == [2000, 4000, 8000, 16000, 32000, *[60000] * 3]


def test_sentences_are_joined_as_their_scripts_are_written() -> None:
    assert joined(["Hello there. ", "", " Bye."]) == "Hello there. Bye."
    assert joined(["你好。", "我叫小明"]) == "你好。我叫小明"
    assert joined(["안녕하세요.", "반갑습니다", "OK", "好"]) == "안녕하세요. 반갑습니다 OK 好"


async def test_w6_a_window_keeps_all_its_sentences_and_is_told(
    tmp_path: Path, endpoint: FakeFunASR
) -> None:
    async with worker(tmp_path, funasr(endpoint), asr_window_seconds=4, asr_hop_seconds=2) as w:
        await w.speak(talk("alpha", "", "bravo", "charlie", "", "delta") + SECOND[:16000])
        result = await w.windows.run(SESSION, "teacher")
        first, second, tail = await w.raw()
        asr = await w.asr()
    assert first.text == "alpha bravo charlie"
    assert (first.start_seq, first.end_seq, first.start_ms, first.end_ms) == (1, 4, 0, 4000)
    assert second.text == "bravo charlie delta" and (second.start_seq, second.end_seq) == (3, 6)
    assert (tail.start_seq, tail.end_seq, tail.end_ms) == (4, 7, 6500), "the last chunk is short"
    assert first.asr_provider == "funasr" and first.asr_model == "model of funasr"
    assert first.latency_ms is not None and first.latency_ms >= 0
    told = [each.utterance_id for each in w.said]
    assert told == [each.utterance_id for each in (first, second, tail)]
    assert (result.generated, result.utterance_count, result.missing_seqs) == (3, 3, ())
    assert result.last_error is None and result.total_windows_processed == 3
    assert result.total_audio_seconds_processed == 12, "what overlaps counts again"
    assert result.avg_window_latency_ms == asr.avg_window_latency_ms > 0
    assert asr.last_window_end_seq == 7 and asr.last_success_at
    assert [task.parameters["format"] for task in endpoint.tasks] == ["pcm"] * 3


async def test_what_windows_say_is_dispatched_where_that_is_asked_for(
    tmp_path: Path, endpoint: FakeFunASR
) -> None:
    """Silence is not: an utterance without text is no message."""
    posts: list[None] = []
    async with worker(tmp_path, funasr(endpoint), asr_window_seconds=2, asr_hop_seconds=2) as w:
        w.dispatch(lambda: posts.append(None))
        await w.speak(talk("alpha", "", "", "", "delta", ""))
        await w.windows.run(SESSION, "teacher")
        said = [each for each in await w.raw() if each.text]
        rows = await w.store.claim("test", 10)
    messages = [decode_message(row.body) for row in rows]
    assert [message.text for message in messages] == [each.text for each in said]
    assert [message.text for message in messages] == ["alpha", "delta"]
    assert {(each.session_id, each.endpoint_id) for each in messages} == {(SESSION, "teacher")}
    assert len(posts) == 2


async def test_a_run_again_finds_nothing_to_do_and_a_limit_is_kept(
    tmp_path: Path, endpoint: FakeFunASR
) -> None:
    async with worker(tmp_path, funasr(endpoint), asr_window_seconds=2, asr_hop_seconds=2) as w:
        await w.speak(talk("alpha", "bravo", "charlie", "delta"))
        assert (await w.windows.run(SESSION, "teacher", 1)).last_window_end_seq == 2
        assert (await w.windows.run(SESSION, "teacher", 1)).last_window_end_seq == 4
        again = await w.windows.run(SESSION, "teacher")
        assert (again.generated, again.utterance_count) == (0, 2)
        assert await w.spans() == [(1, 2), (3, 4)]


async def test_silence_is_an_utterance_without_text_that_nobody_is_told_of(
    tmp_path: Path, endpoint: FakeFunASR
) -> None:
    async with worker(tmp_path, funasr(endpoint)) as w:
        await w.speak(SECOND * 3)
        result = await w.windows.run(SESSION, "teacher")
        (utterance,) = await w.raw()
    assert (result.generated, utterance.text, w.said) == (1, "", [])


async def test_w5_an_error_loses_no_window_that_was_done(tmp_path: Path) -> None:
    """The third task fails: two utterances are there, and the next run goes on behind them."""
    faults = [Fault(), Fault(), Fault(after_ms=500)]
    async with FakeFunASR(faults=faults, sentence_silence_ms=300) as endpoint:
        settings = {"asr_window_seconds": 2, "asr_hop_seconds": 2}
        async with worker(tmp_path, funasr(endpoint), **settings) as w:
            await w.speak(talk("alpha", "bravo", "charlie", "delta", "alpha", "bravo", "delta"))
            broken = await w.windows.run(SESSION, "teacher")
            asr = await w.asr()
            assert (broken.generated, broken.utterance_count) == (2, 2)
            assert broken.last_error and asr.consecutive_failures == 1
            assert 1000 < asr.next_retry_after_ms - now_ms() <= 2000
            waits = await w.windows.run(SESSION, "teacher", forced=False)
            assert waits.generated == 0 and len(endpoint.connections) == 3
            ready = await w.windows.run(SESSION, "teacher")
            assert (ready.generated, ready.last_error) == (2, None)
            asr = await w.asr()
            assert (asr.consecutive_failures, asr.next_retry_after_ms) == (0, 0)
            assert await w.spans() == [(1, 2), (3, 4), (5, 6), (6, 7)]


async def test_w5_a_window_that_is_in_the_log_but_was_not_counted_is_not_repeated(
    tmp_path: Path, endpoint: FakeFunASR
) -> None:
    """Its worker died between the two."""
    async with worker(tmp_path, funasr(endpoint), asr_window_seconds=2, asr_hop_seconds=2) as w:
        await w.speak(talk("alpha", "bravo", "charlie", "delta"))
        await w.windows.run(SESSION, "teacher", 1)
        await w.book.change(SESSION, ASR["teacher"], lambda _: Asr())
        result = await w.windows.run(SESSION, "teacher")
        assert await w.spans() == [(1, 2), (3, 4)] and result.generated == 1


async def test_w21_missing_chunks_are_silence_and_named(
    tmp_path: Path, endpoint: FakeFunASR
) -> None:
    async with worker(tmp_path, funasr(endpoint)) as w:
        await w.speak(talk("alpha", "bravo", "charlie", "delta", "alpha"), without={2, 4})
        result = await w.windows.run(SESSION, "teacher")
        (utterance,) = await w.raw()
        assert utterance.text == "alpha charlie alpha"
        assert result.missing_seqs == (2, 4) and result.last_error is None
        assert (utterance.start_ms, utterance.end_ms) == (0, 5000), "silence of their length"
        (task,) = endpoint.tasks
        assert len(task.audio) == 5 * len(SECOND)


async def test_w21_a_chunk_whose_object_is_lost_is_silence_too(
    tmp_path: Path, endpoint: FakeFunASR
) -> None:
    async with worker(tmp_path, funasr(endpoint)) as w:
        await w.speak(talk("alpha", "bravo"))
        await w.objects.remove(await w.objects.find("sessions/", limit=1))
        result = await w.windows.run(SESSION, "teacher")
        assert (result.missing_seqs, (await w.raw())[0].text) == ((1,), "bravo")


async def test_w4_what_is_said_live_during_a_run_stays(
    tmp_path: Path, endpoint: FakeFunASR
) -> None:
    """And the live client's coming, which cuts off its role's other tracks, stops no run."""
    endpoint.start_delay_s = 0.2
    async with worker(tmp_path, funasr(endpoint), asr_window_seconds=2, asr_hop_seconds=2) as w:
        await w.speak(talk("alpha", "bravo", "charlie", "delta"), "students")
        run = asyncio.ensure_future(w.windows.run(SESSION, "students"))
        while len(await w.spans("students")) < 1:
            await asyncio.sleep(0.01)
        await w.store.open_track(SESSION, f"students{WINDOWS}")
        grant = await w.store.open_track(SESSION, "students")
        await w.store.append(grant, [Draft("final", encode_entry(live("students", "live", 9)))])
        await w.book.change(
            SESSION,
            ASR["students"],
            lambda asr: msgspec.structs.replace(asr, last_emit_at="now"),
        )
        result = await run
        assert [each.text for each in await w.raw("students")] == [
            "alpha bravo", "live", "charlie delta",
        ]  # fmt: skip
        assert (await w.asr("students")).last_emit_at == "now"
        assert result.utterance_count == 3


def live(role: Role, text: str, end_s: int) -> FinalEntry:
    return FinalEntry(
        speaker=role,
        turn=1,
        text=text,
        start_ms=end_s * 1000 - 500,
        end_ms=end_s * 1000,
        timestamp_unix_ms=now_ms(),
        item_id="1",
        provider="embedded",
    )


async def test_of_two_runs_that_were_asked_for_the_later_takes_the_work_over(
    tmp_path: Path, endpoint: FakeFunASR
) -> None:
    endpoint.start_delay_s = 0.1
    settings = {"asr_window_seconds": 1, "asr_hop_seconds": 1}
    async with (
        worker(tmp_path, funasr(endpoint), **settings) as one,
        worker(tmp_path, funasr(endpoint), **settings) as other,
    ):
        await one.speak(talk("alpha", "bravo", "charlie", "delta"))
        first = asyncio.ensure_future(one.windows.run(SESSION, "teacher"))
        while not await one.spans():
            await asyncio.sleep(0.01)
        gives_way = await other.windows.run(SESSION, "teacher", forced=False)
        assert gives_way.generated == 0
        second = await other.windows.run(SESSION, "teacher")
        assert (await first).generated + second.generated == 4
        assert await one.spans() == [(1, 1), (2, 2), (3, 3), (4, 4)]


async def test_chunks_begin_windows_where_recognition_is_not_live(
    tmp_path: Path, endpoint: FakeFunASR
) -> None:
    settings = {"asr_window_seconds": 3, "asr_hop_seconds": 1, "asr_realtime_enabled": False}
    async with worker(tmp_path, funasr(endpoint), **settings) as w:
        for word in ("alpha", "bravo", "charlie", "delta", "alpha"):
            await w.speak(talk(word))
            w.windows.chunk_stored(SESSION, "teacher")
            await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            while len(await w.raw()) < 3:
                await asyncio.sleep(0.01)
        assert await w.spans() == [(1, 3), (2, 4), (3, 5)]


async def test_chunks_begin_nothing_where_recognition_is_live(
    tmp_path: Path, endpoint: FakeFunASR
) -> None:
    async with worker(tmp_path, funasr(endpoint), asr_window_seconds=1) as w:
        await w.speak(talk("alpha"))
        w.windows.chunk_stored(SESSION, "teacher")
        await asyncio.sleep(0.05)
        assert not endpoint.connections


async def test_without_a_recognizer_a_run_says_why_and_changes_nothing(tmp_path: Path) -> None:
    async with worker(tmp_path, asr_enabled=False) as w:
        await w.speak(talk("alpha"))
        result = await w.windows.run(SESSION, "teacher")
        assert result.generated == 0 and "ASR_ENABLED" in (result.last_error or "")
    async with worker(tmp_path) as w:
        assert (await w.windows.run(SESSION, "teacher")).last_error
        await w.book.change(SESSION, PEOPLE, lambda _: People(provider="nobody"))
        assert "'nobody'" in ((await w.windows.run(SESSION, "teacher")).last_error or "")
        assert await w.asr() == Asr()


async def test_w27_a_run_and_a_reset_of_an_unknown_session_create_nothing(
    tmp_path: Path, endpoint: FakeFunASR
) -> None:
    async with worker(tmp_path, funasr(endpoint)) as w:
        assert (await w.windows.run("nobody", "teacher")).generated == 0
        assert (await w.windows.reset("nobody", "teacher")).removed_raw == 0
        assert await w.store.sessions() == []


async def test_a_reset_forgets_one_role_and_the_next_run_hears_it_all_again(
    tmp_path: Path, endpoint: FakeFunASR
) -> None:
    async with worker(tmp_path, funasr(endpoint), asr_window_seconds=2, asr_hop_seconds=2) as w:
        await w.speak(talk("alpha", "bravo", "charlie", "delta"))
        await w.speak(talk("delta"), "students")
        await w.windows.run(SESSION, "teacher")
        await w.windows.run(SESSION, "students")
        for role in ("teacher", "students"):
            said = SpeakerSaid(ts=iso(), stream_role=role, source="teacher_direct")
            event = SpeakerEntry(role, msgspec.Raw(encode(said)))
            await w.store.note(SESSION, [Draft("event", encode_entry(event))])
        before = await w.book.read(SESSION, INGEST["teacher"])
        result = await w.windows.reset(SESSION, "teacher")
        assert (result.removed_raw, result.removed_merged, result.removed_events) == (2, 2, 1)
        view = await Views(w.store).of(SESSION)
        assert not view.raw("teacher") and len(view.raw("students")) == 1
        assert [event.stream_role for event in view.events()] == ["students"]
        asr = await w.asr()
        assert msgspec.structs.replace(asr, updated_at=None) == Asr()
        assert await w.book.read(SESSION, INGEST["teacher"]) == before
        assert (await w.windows.run(SESSION, "teacher")).generated == 2


async def test_a_reset_stops_a_run_whose_text_would_come_after_it(
    tmp_path: Path, endpoint: FakeFunASR
) -> None:
    endpoint.start_delay_s = 0.3
    async with worker(tmp_path, funasr(endpoint), asr_window_seconds=1, asr_hop_seconds=1) as w:
        await w.speak(talk("alpha", "bravo", "charlie"))
        run = asyncio.ensure_future(w.windows.run(SESSION, "teacher"))
        while len(endpoint.tasks) < 2:
            await asyncio.sleep(0.01)
        await w.windows.reset(SESSION, "teacher")
        assert (await run).generated == 1
        assert await w.raw() == []


async def test_a_reset_does_not_wait_for_a_live_client_that_is_dead(
    tmp_path: Path, endpoint: FakeFunASR
) -> None:
    async with worker(tmp_path, funasr(endpoint)) as w:
        await w.speak(talk("alpha"))
        await w.store.put(SESSION, HOLDERS, "teacher", b"long dead", 0)
        async with asyncio.timeout(5):
            await w.windows.reset(SESSION, "teacher")


class Counting(Recognizer):
    """Another recognizer's streams, counted."""

    name = "funasr"
    times = "exact"

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer = recognizer
        self.open_now = self.most_open = 0
        self.wants_for = recognizer.wants_for  # type: ignore[method-assign]

    @property
    def wants(self):  # type: ignore[no-untyped-def]
        return self._recognizer.wants

    async def open(self, request: StreamRequest, emit: Emit) -> RecognizerStream:
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            return await self._recognizer.open(request, emit)
        finally:
            self.open_now -= 1


async def test_windows_of_many_sessions_are_recognized_a_few_at_a_time(
    tmp_path: Path, endpoint: FakeFunASR
) -> None:
    endpoint.start_delay_s = 0.05
    counting = Counting(funasr(endpoint))
    async with worker(tmp_path, counting) as w:
        for number in range(12):
            await w.speak(talk("alpha"), session=f"s{number}")
        results = await asyncio.gather(
            *(w.windows.run(f"s{number}", "teacher") for number in range(12))
        )
    assert all(result.generated == 1 for result in results)
    assert 1 < counting.most_open <= 4
