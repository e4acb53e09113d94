"""Meetings heard as they are spoken: tones through a gateway to Fun-ASR, whatever goes wrong."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from edge.demo.recorder import CHUNK_BYTES, Recorder, Role, ServerFrame, connect
from edge.meeting.book import PEOPLE, Book
from edge.meeting.records import People
from edge.session.store.opening import open_store
from tests.asr.fakes.common import Fault
from tests.asr.fakes.funasr_endpoint import KEY, FakeFunASR
from tests.asr.support.tones import sentence, silence, tone
from tests.support.server import Server, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

RATE_HZ = 16000
SILENCE_MS = 400
Utterance = dict[str, Any]


def said(*sentences: str, apart_ms: int = 1000) -> list[bytes]:
    """Chunks: a second of quiet, then sentences, each followed by quiet."""
    pcm = silence(1000, RATE_HZ)
    for words in sentences:
        pcm += sentence(words, RATE_HZ) + silence(apart_ms, RATE_HZ)
    return [pcm[at : at + CHUNK_BYTES] for at in range(0, len(pcm), CHUNK_BYTES)]


class Weather:
    """What goes wrong with the next connections to the service."""

    def __init__(self) -> None:
        self.next: list[Fault] = []
        self.always = Fault()

    def __call__(self, number: int) -> Fault:
        return self.next.pop(0) if self.next else self.always


class Stage:
    """A gateway, and the service it has."""

    def __init__(self, server: Server, endpoint: FakeFunASR, weather: Weather) -> None:
        self.server = server
        self.endpoint = endpoint
        self.weather = weather
        self.session = ""

    def connect(self, role: Role = "teacher", **more: Any) -> AbstractAsyncContextManager[Recorder]:
        return connect(self.server.url, session_id=self.session, role=role, **more)

    async def get(self, rest: str) -> Any:
        return await get(self.server, f"/v1/sessions/{self.session}/{rest}")

    async def utterances(self, role: Role = "teacher") -> list[Utterance]:
        items: list[Utterance] = (await self.get(f"utterances?stream_role={role}&limit=1000"))[
            "items"
        ]
        return items

    async def texts(self, role: Role = "teacher") -> list[str]:
        return [each["text"] for each in await self.utterances(role)]

    async def error(self) -> Any:
        return (await self.get("state"))["asr_by_stream"]["teacher"]["last_error"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Stage]:
    weather = Weather()
    async with FakeFunASR(sentence_silence_ms=SILENCE_MS, repeats=True, faults=weather) as endpoint:
        async with gateway(endpoint) as server:
            yield Stage(server, endpoint, weather)
        assert not any(heard.violations for heard in endpoint.connections)


@pytest.fixture
def stage(shared: Stage) -> Stage:
    """With a meeting of its own, and nothing wrong."""
    shared.session = uuid4().hex
    shared.endpoint.start_delay_s = 0.0
    shared.weather.next, shared.weather.always = [], Fault()
    return shared


@asynccontextmanager
async def gateway(endpoint: FakeFunASR, workers: int = 1, **more: str) -> AsyncIterator[Server]:
    environment = {
        "ALIYUN_DASHSCOPE_API_KEY": KEY,
        "PROVIDERS_PRIORITY": "funasr",
        "ASR_WS_URL": endpoint.address,
        "ASR_MODEL": "fun-asr-realtime-2026-02-28",
        **more,
    }
    with running("--workers", str(workers), environment=environment) as server:
        yield server
        assert await asyncio.to_thread(server.stop) == 0


async def get(server: Server, path: str) -> Any:
    answer = await asyncio.to_thread(server.get, path)
    assert answer.status == 200, answer
    return json.loads(answer.body)


async def until(
    found: Callable[[], Any], what: str, within_s: float = 10.0, every_s: float = 0.05
) -> Any:
    """What an asynchronous question answers once that is true."""
    give_up_s = time.monotonic() + within_s
    while True:
        if answer := await found():
            return answer
        assert time.monotonic() < give_up_s, what
        await asyncio.sleep(every_s)


async def send(recorder: Recorder, chunks: Sequence[bytes], pace_s: float = 0.0) -> None:
    for chunk in chunks:
        await recorder.chunk(chunk)
        if pace_s:
            await asyncio.sleep(pace_s)
    await recorder.all_acked()


async def test_w8_w12_w15_w18_seconds_sent_as_they_are_spoken_are_heard_where_they_lie(
    stage: Stage,
) -> None:
    """A word over the edge of two chunks stays one; times and latency are those of the meeting."""
    frames: list[ServerFrame] = []
    query = {"transcripts": "true"}
    async with stage.connect(query=query, on_frame=frames.append) as recorder:
        await recorder.hello()
        await send(recorder, said("alpha bravo", "delta"), pace_s=1.0)
        await recorder.close()
    first, second = await stage.utterances()
    assert (first["text"], second["text"]) == ("alpha bravo", "delta")
    assert abs(first["start_ms"] - 1000) <= 60 and abs(first["end_ms"] - 2200) <= 60
    assert abs(second["start_ms"] - 3200) <= 60 and abs(second["end_ms"] - 3800) <= 60
    assert (first["end_seq"], second["start_seq"], second["end_seq"]) == (3, 4, 4)
    assert first["asr_model"] == "fun-asr-realtime-2026-02-28"
    assert 0 <= first["latency_ms"] <= 5000
    # 400 ms of quiet after the second one came with the chunk after its last, a second later.
    assert 900 <= second["latency_ms"] <= 5000
    asr = (await stage.get("state"))["asr_by_stream"]["teacher"]
    samples = [first["latency_ms"], second["latency_ms"]]
    assert asr["recent_ingest_to_utterance_ms"] == samples
    assert (asr["utterance_count"], asr["last_window_end_seq"]) == (2, 4)
    emitted = datetime.fromisoformat(asr["last_emit_at"])
    assert abs((emitted - datetime.fromisoformat(second["created_at"])).total_seconds()) < 5
    assert asr["last_error"] is None
    pushed = [frame for frame in frames if frame.type == "transcript"]
    assert [frame.text for frame in pushed if frame.is_final] == ["alpha bravo", "delta"]
    assert any(not frame.is_final for frame in pushed)


async def test_w13_a_sentence_said_twice_is_two_utterances(stage: Stage) -> None:
    """Though the service tells each of its finals twice."""
    async with stage.connect("students") as recorder:
        await send(recorder, said("golf", "golf", "golf"))
        await recorder.close()
    assert await stage.texts("students") == ["golf", "golf", "golf"]


async def test_w11_close_is_answered_when_the_last_sentence_is_in_the_log(stage: Stage) -> None:
    """The service is slow to start, and the sentence has no silence after it."""
    stage.endpoint.start_delay_s = 1.0
    before = len(stage.endpoint.connections)
    async with stage.connect() as recorder:
        await send(recorder, said("hotel india", apart_ms=0))
        await recorder.close()
    assert await stage.texts() == ["hotel india"]
    heard = stage.endpoint.connections[before:]
    assert [action for each in heard for action in each.texts] == ["run-task", "finish-task"]


async def test_w11_a_socket_that_goes_without_its_close_is_heard_out(stage: Stage) -> None:
    async with stage.connect() as recorder:
        await send(recorder, said("hotel", apart_ms=0))
    assert await until(stage.texts, "the last sentence") == ["hotel"]


async def test_w1_w2_closing_one_role_does_not_delay_the_acks_of_another(stage: Stage) -> None:
    stage.endpoint.start_delay_s = 4.0
    async with stage.connect() as teacher, stage.connect("students") as students:
        await send(teacher, said("alpha", apart_ms=0))
        closing = asyncio.create_task(teacher.close())
        for _ in range(10):
            await send(students, [bytes(CHUNK_BYTES)])
            assert students.latest_ack_s < 2
        assert not closing.done(), "the close still awaits its recognizer"
        await closing


async def test_w10_an_older_socket_that_closes_leaves_the_newer_one_its_recognizer(
    stage: Stage,
) -> None:
    chunks = said("alpha bravo charlie delta", "echo foxtrot golf")
    async with stage.connect() as older, stage.connect() as newer:
        await older.hello()
        await send(older, chunks[:2])
        await newer.hello()
        assert newer.last_seq == 2
        await send(newer, chunks[2:3])
        await older.close()
        await send(newer, chunks[3:])
        await newer.close()
    assert " ".join(await stage.texts()) == "alpha bravo charlie delta echo foxtrot golf"


async def test_an_older_socket_is_heard_again_when_the_newer_one_has_gone(stage: Stage) -> None:
    async with stage.connect() as older:
        await older.hello()
        async with stage.connect() as newer:
            await newer.hello()
            await send(newer, said("alpha"))
            await newer.close()
        older.last_seq = newer.last_seq
        await send(older, said("bravo", "charlie"))
        await older.close()
    assert await stage.texts() == ["alpha", "bravo", "charlie"]


async def test_w10_an_older_socket_that_ends_with_the_newer_one_is_heard_out(
    stage: Stage,
) -> None:
    """All it sends comes while the newer one is there, which ends at the same time."""
    async with stage.connect() as older, stage.connect() as newer:
        await older.hello()
        await newer.hello()
        await send(newer, said("alpha"))
        older.last_seq = newer.last_seq
        await send(older, said("bravo", "charlie"))
        await asyncio.gather(newer.close(), older.close())
    assert await stage.texts() == ["alpha", "bravo", "charlie"]


async def test_w9_what_was_said_while_the_recognizer_dropped_is_said_again_to_the_next(
    stage: Stage,
) -> None:
    stage.weather.next = [Fault(after_ms=2500, then="drop"), Fault(after_ms=1000, then="error")]
    async with stage.connect() as recorder:
        await send(recorder, said("alpha bravo", "charlie delta", "echo foxtrot"), 0.1)
        await recorder.close()
    items = await stage.utterances()
    assert [each["text"] for each in items] == ["alpha bravo", "charlie delta", "echo foxtrot"]
    for each, start_ms in zip(items, (1000, 3200, 5400), strict=True):
        assert abs(each["start_ms"] - start_ms) <= 60, items


async def test_w17_what_came_during_an_outage_is_read_back_from_the_object_store(
    stage: Stage,
) -> None:
    """A minute comes at once while the service drops everybody."""
    stage.weather.always = Fault(after_ms=0, then="drop")
    names = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot"]
    async with stage.connect() as recorder:
        await send(recorder, said(*names, apart_ms=9400))
        stage.weather.always = Fault()

        async def all_heard() -> bool:
            return len(await stage.texts()) >= len(names)

        await until(all_heard, "all is heard", 20)
        await recorder.close()
    items = await stage.utterances()
    assert [each["text"] for each in items] == names
    for number, each in enumerate(items):
        assert abs(each["start_ms"] - 1000 - 10_000 * number) <= 60, items


async def test_a_gap_in_the_chunks_is_silence_and_times_stay_those_of_the_meeting(
    stage: Stage,
) -> None:
    async with stage.connect() as recorder:
        word = tone("golf", RATE_HZ) + silence(400, RATE_HZ)
        for seq in (1, 3, 20, 21):
            await recorder.chunk(word, seq)
        await recorder.all_acked()
        await recorder.close()
    items = await stage.utterances()
    assert [each["text"] for each in items] == ["golf"] * 4
    for each, start_ms in zip(items, (0, 2000, 19_000, 20_000), strict=True):
        assert abs(each["start_ms"] - start_ms) <= 60, items


async def test_w33_finalize_has_the_sentence_that_had_no_final_yet(stage: Stage) -> None:
    async with stage.connect() as recorder:
        await send(recorder, said("alpha", "bravo charlie", apart_ms=0))
        path = f"/v1/sessions/{stage.session}/finalize"
        done = await asyncio.to_thread(
            lambda: stage.server.get(path, "POST", body=b"{}", timeout_s=20)
        )
        assert done.status == 200
        result = await stage.get("result")
        heard = [each["text"] for each in result["utterances_raw_by_stream"]["teacher"]]
        assert " ".join(heard) == "alpha bravo charlie"
        await send(recorder, said("delta"))
        await recorder.close()
    assert " ".join(await stage.texts()) == "alpha bravo charlie delta"


async def test_w8_after_a_worker_died_what_no_final_covers_is_heard_where_it_lies(
    stage: Stage,
) -> None:
    chunks = said("alpha bravo", "charlie delta", apart_ms=800)
    async with stage.connect() as recorder:
        await send(recorder, chunks[:4])
        await until(stage.texts, "the first sentence")
        for pid in stage.server.workers():
            stage.server.kill_worker(pid)

    async def is_ready() -> bool:
        with suppress(OSError, http.client.HTTPException):
            return (await asyncio.to_thread(stage.server.get, "/ready")).status == 200
        return False

    await until(is_ready, "a new worker")
    async with stage.connect() as recorder:
        await recorder.hello()
        assert recorder.last_seq == 4
        await send(recorder, [*chunks[4:], bytes(CHUNK_BYTES)])
        await recorder.close()
    items = await stage.utterances()
    assert [each["text"] for each in items] == ["alpha bravo", "charlie delta"]
    assert abs(items[1]["start_ms"] - 3000) <= 60 and abs(items[1]["end_ms"] - 4200) <= 60


async def test_w17_a_wrong_key_is_not_tried_again_and_shows_in_the_state() -> None:
    """Audio of the query's recognizer, where there is one, needs no key."""
    more = {"ALIYUN_DASHSCOPE_API_KEY": "sk-wrong", "ENABLE_DUMMY_PROVIDER": "true"}
    async with FakeFunASR() as endpoint, gateway(endpoint, **more) as server:
        stage = Stage(server, endpoint, Weather())
        stage.session = "m"
        async with stage.connect("students", query={"provider": "dummy"}) as recorder:
            await send(recorder, said("alpha"))
            await recorder.close()
        assert endpoint.connections == []
        async with stage.connect() as recorder:
            await send(recorder, said("alpha"), 0.1)
            await until(stage.error, "the refusal is told")
            tried = len(endpoint.connections)
            await send(recorder, said("alpha"), 0.1)
            assert len(endpoint.connections) == tried
            await recorder.close()
        assert "sk-wrong" not in server.log


async def test_a_recognizer_that_is_not_there_any_more_shows_in_the_state(stage: Stage) -> None:
    """Its meeting chose it from a gateway that had it; chunks are stored all the same."""
    location = str(stage.server.data_dir / "sessions.db")
    async with open_store(location, "process") as store:
        gone = People(provider="deepgram")
        await Book(store).change(stage.session, PEOPLE, lambda people: gone)
    async with stage.connect() as recorder:
        await send(recorder, said("alpha"))
        assert await until(stage.error, "the reason") == "the recognizer deepgram is not available"
        await recorder.close()
    assert (await stage.get("state"))["ingest_by_stream"]["teacher"]["last_seq"] == 3
