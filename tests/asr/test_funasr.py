"""What goes over the wire to DashScope, and what becomes of its answers."""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.asr import funasr_stream
from edge.asr.funasr import FunASRRecognizer, FunASRSettings, missing
from edge.asr.funasr_events import Header, Parameters, as_error, decode, parameters, sentence_of
from edge.asr.interface import RecognizerStream, StreamRequest
from edge.errors import (
    RecognizerBusy,
    RecognizerClosed,
    RecognizerError,
    RecognizerRefused,
    RecognizerTimeout,
    SettingError,
)
from tests.asr.fakes.common import Fault
from tests.asr.fakes.funasr_endpoint import BYTES_PER_MS, KEY, RATE_HZ, FakeFunASR
from tests.asr.support.events import Events
from tests.asr.support.supervision import QUICK, scene, until
from tests.asr.support.tones import WORD_MS, WORDS, sentence, silence, tone

REQUEST = StreamRequest(track="tag-1")
PAUSE = silence(500, RATE_HZ)


def recognizer(endpoint: FakeFunASR, **settings: object) -> FunASRRecognizer:
    values = {"funasr_api_key": KEY, "funasr_url": endpoint.address, **settings}
    return FunASRRecognizer(msgspec.convert(values, FunASRSettings))


def endpoint_of(**options: object) -> FakeFunASR:
    """Sentences end after 400 ms of silence."""
    return FakeFunASR(**{"sentence_silence_ms": 400, **options})  # type: ignore[arg-type]


def say(stream: RecognizerStream, pcm: bytes, batch_ms: int = 100) -> None:
    size = batch_ms * BYTES_PER_MS
    for start in range(0, len(pcm), size):
        stream.send(pcm[start : start + size])


async def test_audio_becomes_interims_and_finals_with_the_times_of_the_service() -> None:
    async with endpoint_of() as endpoint:
        events = Events()
        stream = await recognizer(endpoint).open(REQUEST, events)
        said = PAUSE + sentence("alpha bravo", RATE_HZ) + PAUSE + sentence("charlie", RATE_HZ)
        say(stream, said + PAUSE)
        await until(lambda: len(events.texts) == 2)
        await stream.close()
        heard = endpoint.connections[0]
        (task,) = endpoint.tasks

    assert [interim.text for interim in events.interims] == ["alpha", "alpha bravo", "charlie"]
    first, second = events.finals
    assert (first.text, second.text) == ("alpha bravo", "charlie")
    assert (first.start_ms, first.end_ms) == pytest.approx((500, 1700), abs=40)
    assert (second.start_ms, second.end_ms) == pytest.approx((2200, 2800), abs=40)
    assert events.interims[0].item_id == first.item_id != second.item_id
    assert heard.headers["authorization"] == f"bearer {KEY}"
    assert task.parameters == {"format": "pcm", "sample_rate": RATE_HZ, "heartbeat": True}
    assert bytes(task.audio) == said + PAUSE
    assert not heard.violations
    assert events.error is None


@pytest.mark.parametrize(
    ("language", "hints"), [("en-GB", ["en"]), ("zh", ["zh"]), ("fr", None), ("", None)]
)
async def test_a_language_the_service_knows_becomes_a_hint(
    language: str, hints: list[str] | None
) -> None:
    async with endpoint_of() as endpoint:
        request = StreamRequest(track="tag-1", language=language)
        stream = await recognizer(endpoint).open(request, Events())
        await stream.close()
        assert endpoint.tasks[0].parameters.get("language_hints") == hints


async def test_audio_waits_for_the_task_to_start() -> None:
    """Sent earlier it would be an error of protocol; the fake says so."""
    async with endpoint_of(start_delay_s=0.2) as endpoint:
        events = Events()
        opened_s = time.monotonic()
        stream = await recognizer(endpoint).open(REQUEST, events)
        assert time.monotonic() - opened_s >= 0.2
        say(stream, sentence("alpha", RATE_HZ))
        stream.commit()
        say(stream, sentence("bravo", RATE_HZ))
        assert stream.backlog_ms == pytest.approx(600), "the second task has not started"
        await stream.drain()
        await stream.close()
        assert not endpoint.connections[0].violations
    assert events.texts == ["alpha", "bravo"]


async def test_a_commit_ends_the_task_and_the_next_audio_starts_one_on_the_same_connection() -> (
    None
):
    async with endpoint_of() as endpoint:
        events = Events()
        stream = await recognizer(endpoint).open(REQUEST, events)
        for words in ("alpha", "bravo charlie", "delta"):
            say(stream, sentence(words, RATE_HZ))
            stream.commit()
            stream.commit()
        await stream.drain()
        stream.commit()
        await stream.close()
        heard = endpoint.connections
        tasks = endpoint.tasks

    assert events.texts == ["alpha", "bravo charlie", "delta"]
    times = [(final.start_ms, final.end_ms) for final in events.finals if final.text]
    assert times == [
        pytest.approx((0, 600), abs=40),
        pytest.approx((600, 1800), abs=40),
        pytest.approx((1800, 2400), abs=40),
    ]
    dealt = [final.end_ms for final in events.finals if not final.text]
    assert dealt == pytest.approx([600, 1800, 2400]), "the end of a task deals with all its audio"
    assert len(heard) == 1 and not heard[0].violations
    assert heard[0].texts == ["run-task", "finish-task"] * 3
    assert len({task.task_id for task in tasks}) == 3


@pytest.mark.parametrize("seed", range(6))
async def test_times_hold_whatever_is_committed_and_when(seed: int) -> None:
    """Words, pauses, commits and batches of any size: each final lies where its words were said."""
    chance = Random(seed)
    async with endpoint_of(start_delay_s=0.01) as endpoint:
        events = Events()
        stream = await recognizer(endpoint).open(REQUEST, events)
        at_ms, spoken = 0, []
        for _ in range(12):
            word = chance.choice(WORDS)
            pause_ms = chance.choice((0, 60, 500))
            spoken.append((word, at_ms, at_ms + WORD_MS))
            say(stream, tone(word, RATE_HZ) + silence(pause_ms, RATE_HZ), chance.randint(10, 900))
            at_ms += WORD_MS + pause_ms
            if pause_ms == 0 or chance.random() < 0.3:
                stream.commit()
            await asyncio.sleep(chance.choice((0, 0.005, 0.02)))
        await stream.drain()
        await stream.close()
        assert not any(heard.violations for heard in endpoint.connections)
    assert " ".join(events.texts).split() == [word for word, _, _ in spoken]
    finals = [final for final in events.finals if final.text]
    for final in finals:
        said, spoken = spoken[: len(final.text.split())], spoken[len(final.text.split()) :]
        assert final.start_ms == pytest.approx(said[0][1], abs=40)
        assert final.end_ms == pytest.approx(said[-1][2], abs=40)
    assert events.finals[-1].end_ms == pytest.approx(at_ms), "all audio has been dealt with"


async def test_w19_messages_are_as_large_as_they_may_be_and_paced() -> None:
    async with endpoint_of() as endpoint:
        events = Events()
        opener = recognizer(endpoint, funasr_frame_bytes=6400, funasr_pacing_ms=20)
        stream = await opener.open(REQUEST, events)
        began_s = time.monotonic()
        say(stream, sentence("alpha bravo", RATE_HZ))
        await stream.drain()
        await stream.close()
        sizes = endpoint.connections[0].sizes
    assert sizes[0] == 3200 and set(sizes[1:-1]) == {6400}, "what waits is put together"
    assert time.monotonic() - began_s >= 0.02 * (len(sizes) - 1)
    assert events.texts == ["alpha bravo"]


async def test_without_pacing_large_pieces_are_split_and_small_ones_go_at_once() -> None:
    async with endpoint_of() as endpoint:
        stream = await recognizer(endpoint).open(REQUEST, Events())
        stream.send(bytes(320))
        stream.send(bytes(30_000))
        await until(lambda: len(endpoint.connections[0].sizes) == 4)
        await stream.close()
        assert endpoint.connections[0].sizes == [320, 12800, 12800, 4400]


async def test_w6_w14_heartbeats_and_results_without_a_flag_are_no_text() -> None:
    """Only a true ``sentence_end`` is final; a heartbeat is nothing but a sign of life."""
    heartbeat = b'{"sentence":{"text":"neutral","heartbeat":true,"sentence_end":true}}'
    flagless = b'{"sentence":{"text":"nobody said that","end_time":5}}'
    async with endpoint_of() as endpoint:
        events = Events()
        stream = await recognizer(endpoint).open(REQUEST, events)
        assert isinstance(stream, funasr_stream.FunASRStream)
        for output in (heartbeat, flagless):
            header = b'{"event":"result-generated","task_id":"%s"}' % stream._task_id.encode()
            stream.received(b'{"header":%s,"payload":{"output":%s}}' % (header, output))
        say(stream, silence(12_000, RATE_HZ))
        await until(lambda: endpoint.connections[0].audio_ms >= 12_000)
        await stream.drain()
        await stream.close()
    assert [interim.text for interim in events.interims] == ["nobody said that"]
    assert events.texts == []


@pytest.mark.parametrize("numbered", [True, False])
async def test_the_same_words_twice_stay_and_a_result_sent_twice_does_not(numbered: bool) -> None:
    async with endpoint_of(numbered=numbered, repeats=True) as endpoint:
        events = Events()
        stream = await recognizer(endpoint).open(REQUEST, events)
        for _ in range(3):
            say(stream, sentence("alpha", RATE_HZ) + PAUSE)
        stream.commit()
        say(stream, sentence("alpha", RATE_HZ) + PAUSE)
        await stream.drain()
        await stream.close()
    assert events.texts == ["alpha"] * 4
    assert len({final.item_id for final in events.finals if final.text}) == 4


async def test_w16_a_muted_track_keeps_its_connection_and_its_times() -> None:
    """A task without audio is finished before it fails, a spare connection gets a task in time."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("WATCH_S", 0.02), ("QUIET_S", 0.3), ("SPARE_S", 0.5)):
            patch.setattr(funasr_stream, name, value)
        async with endpoint_of(task_timeout_s=1.2, spare_timeout_s=2.0) as endpoint:
            events = Events()
            stream = await recognizer(endpoint).open(REQUEST, events)
            say(stream, sentence("alpha", RATE_HZ))
            await until(lambda: len(endpoint.tasks) >= 3)
            say(stream, sentence("bravo", RATE_HZ))
            await stream.drain()
            await stream.close()
            assert len(endpoint.connections) == 1
    assert events.texts == ["alpha", "bravo"]
    final = next(final for final in events.finals if final.text == "bravo")
    assert (final.start_ms, final.end_ms) == pytest.approx((600, 1200), abs=40)
    assert events.error is None


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"faults": [Fault(status=HTTPStatus.UNAUTHORIZED)]}, RecognizerRefused),
        ({"faults": [Fault(status=HTTPStatus.FORBIDDEN)]}, RecognizerRefused),
        ({"faults": [Fault(status=HTTPStatus.NOT_FOUND)]}, RecognizerRefused),
        ({"faults": [Fault(status=HTTPStatus.TOO_MANY_REQUESTS)]}, RecognizerBusy),
        ({"faults": [Fault(status=HTTPStatus.BAD_GATEWAY)]}, RecognizerBusy),
        ({"faults": [Fault(after_ms=0, then="drop")]}, RecognizerClosed),
        ({"faults": [Fault(after_ms=0, then="close", code=None)]}, RecognizerClosed),
        ({"faults": [Fault(after_ms=0, then="close", code=1011)]}, RecognizerClosed),
        ({"faults": [Fault(after_ms=0, then="mute")]}, RecognizerTimeout),
        ({"refuses": {"error_code": "ModelNotFound", "error_message": "?"}}, RecognizerRefused),
        ({"refuses": {"error_code": "Arrearage", "error_message": "?"}}, RecognizerRefused),
        ({"refuses": {"error_code": "Throttling.RateQuota", "error_message": "?"}}, RecognizerBusy),
        ({"refuses": {"error_code": "CLIENT_ERROR", "error_message": "?"}}, RecognizerClosed),
    ],
)
async def test_w7_w7b_what_keeps_a_task_from_starting_is_an_error_of_opening(
    options: dict[str, object], error: type[RecognizerError]
) -> None:
    """Also a connection that closes before ``task-started``; nothing stays open."""
    async with endpoint_of(**options) as endpoint:
        events = Events()
        with pytest.raises(error):
            await recognizer(endpoint, funasr_timeout_ms=300).open(REQUEST, events)
        await until(lambda: not endpoint.open_connections)
    assert events.all == []


async def test_a_wrong_key_names_the_setting_and_never_the_key() -> None:
    async with endpoint_of() as endpoint:
        with pytest.raises(RecognizerRefused, match="ALIYUN_DASHSCOPE_API_KEY") as caught:
            await recognizer(endpoint, funasr_api_key="sk-0000").open(REQUEST, Events())
    assert "sk-0000" not in str(caught.value)


async def test_a_cancelled_opening_leaves_nothing_open() -> None:
    async with endpoint_of(start_delay_s=30) as endpoint:
        opening = asyncio.create_task(recognizer(endpoint).open(REQUEST, Events()))
        await until(lambda: endpoint.tasks)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await until(lambda: not endpoint.open_connections)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(after_ms=500, then="drop"), RecognizerClosed),
        (Fault(after_ms=500, then="close", code=None), RecognizerClosed),
        (Fault(after_ms=500, then="error"), RecognizerBusy),
        (
            Fault(after_ms=500, then="error", error={"error_code": "InvalidParameter"}),
            RecognizerClosed,
        ),
        (Fault(after_ms=500, then="error", error={"error_code": "Arrearage"}), RecognizerRefused),
    ],
)
async def test_a_task_that_fails_amid_audio_ends_the_stream(
    fault: Fault, error: type[RecognizerError]
) -> None:
    async with endpoint_of(faults=[fault]) as endpoint:
        events = Events()
        stream = await recognizer(endpoint).open(REQUEST, events)
        say(stream, sentence("alpha bravo", RATE_HZ))
        await until(lambda: events.ended)
        say(stream, sentence("charlie", RATE_HZ))
        assert type(events.error) is error
        await stream.drain()
        await stream.close()
        assert len(events.ended) == 1


async def test_a_service_that_does_not_finish_a_task_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(funasr_stream, "WATCH_S", 0.02)
    monkeypatch.setattr(funasr_stream, "FINISH_S", 0.2)
    async with endpoint_of(faults=[Fault(after_ms=100, then="mute")]) as endpoint:
        events = Events()
        stream = await recognizer(endpoint).open(REQUEST, events)
        say(stream, sentence("alpha", RATE_HZ))
        await stream.drain()
        assert isinstance(events.error, RecognizerTimeout)
        await stream.close()


async def test_silence_of_the_service_amid_audio_is_something_it_owes() -> None:
    async with endpoint_of(faults=[Fault(after_ms=100, then="mute")]) as endpoint:
        stream = await recognizer(endpoint).open(REQUEST, Events())
        say(stream, silence(9_000, RATE_HZ))
        assert not stream.turn_open
        say(stream, silence(2_000, RATE_HZ))
        await until(lambda: stream.turn_open)
        assert stream.probe(), "asked by ending the task"
        await until(lambda: "finish-task" in endpoint.connections[0].texts)
        await stream.close()


async def test_more_audio_than_may_wait_ends_the_stream() -> None:
    async with endpoint_of(faults=[Fault(after_ms=0, then="deaf")], start_delay_s=0) as endpoint:
        with pytest.raises(RecognizerTimeout):
            await recognizer(endpoint, funasr_timeout_ms=200).open(REQUEST, Events())
    async with endpoint_of() as endpoint:
        events = Events()
        stream = await recognizer(endpoint, funasr_pacing_ms=1000).open(REQUEST, events)
        stream.send(silence(31_000, RATE_HZ))
        assert isinstance(events.error, RecognizerBusy)
        await stream.close()


async def test_strange_messages_are_counted_and_ignored() -> None:
    strange: list[str | bytes] = ["x", b"\x00\xff", "[]", '{"header":{"event":5}}']
    for message in strange:
        async with endpoint_of(faults=[Fault(strange=message)]) as endpoint:
            opener = recognizer(endpoint)
            events = Events()
            stream = await opener.open(REQUEST, events)
            say(stream, sentence("alpha", RATE_HZ))
            await stream.drain()
            await stream.close()
            assert events.texts == ["alpha"]
            assert opener.counts.messages_malformed == 1


async def test_a_task_that_ends_by_itself_is_a_failure() -> None:
    async with endpoint_of() as endpoint:
        events = Events()
        stream = await recognizer(endpoint).open(REQUEST, events)
        assert isinstance(stream, funasr_stream.FunASRStream)
        header = b'{"event":"task-finished","task_id":"%s"}' % stream._task_id.encode()
        stream.received(b'{"header":%s,"payload":{"output":{}}}' % header)
        assert isinstance(events.error, RecognizerClosed)
        await stream.close()


async def test_a_drop_amid_speech_loses_no_word_and_doubles_none() -> None:
    """Under a supervisor, with real packets: audio since the last final is said again."""
    faults = [Fault(after_ms=2900), Fault(after_ms=900, then="error"), Fault()]
    async with (
        endpoint_of(faults=faults) as endpoint,
        scene(recognizer(endpoint)) as played,
    ):
        await played.speaker.say("alpha")
        await until(lambda: played.listener.finals)
        for words in ("bravo", "charlie delta", "echo"):
            await played.speaker.say(words)
        await until(lambda: "echo" in played.listener.text)
        await played.supervisor.finish(5)
        assert played.listener.text == "alpha bravo charlie delta echo"
        assert len(endpoint.connections) == 3
        starts = [final.start_ms for final in played.listener.finals]
        assert starts == sorted(starts)


async def test_what_was_said_before_a_mute_is_committed_by_the_supervisor() -> None:
    quick = msgspec.structs.replace(QUICK, force_commit_timeout_s=0.8)
    async with (
        FakeFunASR() as endpoint,
        scene(recognizer(endpoint), settings=quick) as played,
    ):
        await played.speaker.say("alpha bravo", pause_ms=0)
        await until(lambda: played.listener.finals)
        assert played.listener.text == "alpha bravo"
        await played.speaker.say("charlie", pause_ms=0)
        await until(lambda: len(played.listener.finals) == 2)
        assert played.listener.text == "alpha bravo charlie"
        assert len(endpoint.connections) == 1


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (FunASRSettings(), "set ALIYUN_DASHSCOPE_API_KEY"),
        (FunASRSettings(funasr_api_key="k", funasr_enabled=False), "set ASR_ENABLED=true"),
        (FunASRSettings(funasr_api_key="k"), None),
    ],
)
def test_it_is_there_with_a_key_unless_switched_off(
    settings: FunASRSettings, reason: str | None
) -> None:
    assert missing(settings) == reason


def test_an_address_that_is_none_stops_the_start() -> None:
    with pytest.raises(SettingError, match="ASR_WS_URL"):
        FunASRRecognizer(FunASRSettings(funasr_api_key="k", funasr_url="https://x.example"))


@given(st.text())
def test_no_language_breaks_the_parameters(language: str) -> None:
    assert isinstance(parameters(language), Parameters)


@given(st.binary() | st.text().map(str.encode))
def test_any_message_is_taken_or_refused_as_malformed(message: bytes) -> None:
    payload = b'{"header":{"event":"result-generated"},"payload":%s}' % message
    for wire in (message, payload):
        try:
            sentence_of(decode(wire))
        except msgspec.DecodeError:
            continue


@given(st.none() | st.text(), st.none() | st.text(), st.booleans())
def test_every_failure_has_an_error_without_the_key(
    code: str | None, said: str | None, accepted: bool
) -> None:
    said = f"{said} {KEY}"
    error = as_error(Header("task-failed", error_code=code, error_message=said), accepted=accepted)
    assert str(error).startswith("FunASR: ") and KEY not in str(error)
