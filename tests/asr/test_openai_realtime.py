"""What goes over the wire to OpenAI, and what becomes of its answers."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import pytest

from edge.asr.interface import StreamRequest
from edge.asr.openai_realtime import OpenAIRecognizer, OpenAISettings
from edge.errors import (
    RecognizerBusy,
    RecognizerClosed,
    RecognizerError,
    RecognizerRefused,
    SettingError,
)
from tests.asr.fakes.openai_endpoint import KEY, RATE_HZ, FakeOpenAI, Fault
from tests.asr.support.events import Events
from tests.asr.support.supervision import openai, until
from tests.asr.support.tones import sentence, silence, tone

REQUEST = StreamRequest(track="tag-1")


def batches(pcm: bytes, batch_ms: int = 100) -> list[bytes]:
    size = batch_ms * RATE_HZ * 2 // 1000
    return [pcm[start : start + size] for start in range(0, len(pcm), size)]


async def test_audio_becomes_interims_with_the_text_so_far_and_a_timed_final() -> None:
    async with FakeOpenAI() as endpoint:
        events = Events()
        stream = await openai(endpoint.url).open(REQUEST, events)
        said = silence(500, RATE_HZ) + sentence("alpha bravo", RATE_HZ) + silence(600, RATE_HZ)
        for batch in batches(said):
            stream.send(batch)
        await until(lambda: events.finals)
        await stream.close()
        heard = endpoint.connections[0]

    assert [interim.text for interim in events.interims] == ["alpha", "alpha bravo"]
    (final,) = events.finals
    assert final.text == "alpha bravo"
    assert final.confidence == pytest.approx(0.905, abs=0.001)
    assert (final.start_ms, final.end_ms) == (200, 2000), "padding before, 300 ms silence after"
    assert {interim.item_id for interim in events.interims} == {final.item_id}
    assert bytes(heard.audio) == said
    assert not heard.violations
    assert events.error is None


async def test_the_session_is_configured_in_the_ga_shape_before_any_audio() -> None:
    async with FakeOpenAI() as endpoint:
        settings = OpenAISettings(
            openai_api_key=KEY,
            openai_realtime_url=endpoint.url,
            openai_model="gpt-4o-transcribe",
            openai_transcription_prompt="names of birds",
        )
        request = StreamRequest(track="tag-1", language="de")
        stream = await OpenAIRecognizer(settings).open(request, Events())
        await until(lambda: endpoint.connections[0].session)
        await stream.close()
        heard = endpoint.connections[0]

    assert heard.session == {
        "type": "transcription",
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "noise_reduction": {"type": "near_field"},
                "transcription": {
                    "model": "gpt-4o-transcribe",
                    "language": "de",
                    "prompt": "names of birds",
                },
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 300,
                },
            }
        },
        "include": ["item.input_audio_transcription.logprobs"],
    }
    assert heard.headers["authorization"] == f"Bearer {KEY}"
    assert "sec-websocket-protocol" not in heard.headers
    assert "sec-websocket-extensions" not in heard.headers, "no compression"


async def test_settings_choose_the_older_shape_and_the_key_in_the_subprotocol() -> None:
    async with FakeOpenAI() as endpoint:
        settings = OpenAISettings(
            openai_api_key=KEY,
            openai_realtime_url=endpoint.url,
            openai_session="beta",
            openai_key_in_subprotocol=True,
            openai_turn_detection={"type": "semantic_vad", "eagerness": "high"},
        )
        stream = await OpenAIRecognizer(settings).open(REQUEST, Events())
        await until(lambda: endpoint.connections[0].session)
        await stream.close()
        heard = endpoint.connections[0]

    assert heard.session is not None
    assert heard.session["input_audio_format"] == "pcm16"
    assert heard.session["input_audio_transcription"] == {"model": "gpt-4o-mini-transcribe"}
    assert heard.session["turn_detection"] == {"type": "semantic_vad", "eagerness": "high"}
    assert f"openai-insecure-api-key.{KEY}" in heard.headers["sec-websocket-protocol"]
    assert "authorization" not in heard.headers


async def test_a_commit_without_server_vad_ends_at_the_audio_sent_before_it() -> None:
    async with FakeOpenAI() as endpoint:
        settings = OpenAISettings(
            openai_api_key=KEY, openai_realtime_url=endpoint.url, openai_turn_detection=None
        )
        events = Events()
        stream = await OpenAIRecognizer(settings).open(REQUEST, events)
        stream.send(tone("alpha", RATE_HZ))
        stream.commit()
        stream.send(tone("bravo", RATE_HZ))
        await stream.drain()
        await stream.close()

    assert [(final.text, final.start_ms, final.end_ms) for final in events.finals] == [
        ("alpha", 0, 600),
        ("bravo", 600, 1200),
    ]


async def test_a_commit_amid_speech_keeps_the_start_the_service_had_announced() -> None:
    async with FakeOpenAI() as endpoint:
        events = Events()
        stream = await openai(endpoint.url).open(REQUEST, events)
        stream.send(silence(1000, RATE_HZ) + tone("alpha", RATE_HZ))
        await stream.drain()
        await stream.close()

    (final,) = events.finals
    assert (final.text, final.start_ms, final.end_ms) == ("alpha", 700, 1600)


async def test_silence_is_never_committed() -> None:
    async with FakeOpenAI() as endpoint:
        events = Events()
        stream = await openai(endpoint.url).open(REQUEST, events)
        stream.send(silence(3000, RATE_HZ))
        stream.commit()
        await stream.drain()
        stream.send(sentence("alpha", RATE_HZ) + silence(1000, RATE_HZ))
        await until(lambda: events.finals)
        stream.commit()
        await stream.drain()
        await stream.close()
        assert endpoint.connections[0].commits == 0
    assert [final.text for final in events.finals] == ["alpha"]


async def test_an_empty_commit_is_no_error() -> None:
    """The service's VAD may commit on its own just before we do."""
    async with FakeOpenAI(vad_events=False) as endpoint:
        events = Events()
        stream = await openai(endpoint.url).open(REQUEST, events)
        stream.send(sentence("alpha", RATE_HZ) + silence(300, RATE_HZ))
        stream.commit()
        await stream.drain()
        await stream.close()
        assert endpoint.connections[0].commits == 1
    assert [final.text for final in events.finals] == ["alpha"]
    assert events.error is None


async def test_drain_returns_with_the_last_final_and_close_says_so_once() -> None:
    async with FakeOpenAI(delay_s=lambda item: 0.2) as endpoint:
        events = Events()
        stream = await openai(endpoint.url).open(REQUEST, events)
        stream.send(tone("alpha", RATE_HZ))
        await asyncio.wait_for(stream.drain(), 5)
        assert [final.text for final in events.finals] == ["alpha"]
        await stream.close()
        await stream.close()
    assert events.error is None


async def test_finals_come_in_spoken_order_though_the_service_answers_out_of_order() -> None:
    async with FakeOpenAI(delay_s=lambda item: 0.3 if item == 0 else 0.0) as endpoint:
        events = Events()
        stream = await openai(endpoint.url).open(REQUEST, events)
        stream.send(sentence("alpha bravo", RATE_HZ, pause_ms=700))
        await until(lambda: len(events.finals) == 2)
        await stream.close()
    assert [final.text for final in events.finals] == ["alpha", "bravo"]


async def test_an_item_that_fails_is_counted_and_holds_up_nothing() -> None:
    async with FakeOpenAI(fails=lambda item: item == 0) as endpoint:
        recognizer = openai(endpoint.url)
        events = Events()
        stream = await recognizer.open(REQUEST, events)
        stream.send(sentence("alpha bravo", RATE_HZ, pause_ms=700))
        await stream.drain()
        await until(lambda: events.finals)
        await stream.close()
    assert [final.text for final in events.finals if final.text] == ["bravo"]
    assert recognizer.counts.items_failed == 1


@pytest.mark.parametrize(
    ("status", "headers", "kind", "retry_after_s"),
    [
        (HTTPStatus.UNAUTHORIZED, {}, RecognizerRefused, None),
        (HTTPStatus.FORBIDDEN, {}, RecognizerRefused, None),
        (HTTPStatus.NOT_FOUND, {}, RecognizerRefused, None),
        (HTTPStatus.BAD_REQUEST, {}, RecognizerRefused, None),
        (HTTPStatus.FOUND, {"Location": "ws://127.0.0.1:1/"}, RecognizerRefused, None),
        (HTTPStatus.TOO_MANY_REQUESTS, {"Retry-After": "7"}, RecognizerBusy, 7.0),
        (HTTPStatus.TOO_MANY_REQUESTS, {"Retry-After": "soon"}, RecognizerBusy, None),
        (
            HTTPStatus.SERVICE_UNAVAILABLE,
            {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"},
            RecognizerBusy,
            0.0,
        ),
        (HTTPStatus.INTERNAL_SERVER_ERROR, {}, RecognizerBusy, None),
    ],
)
async def test_a_refused_handshake_says_whether_trying_again_helps(
    status: HTTPStatus,
    headers: dict[str, str],
    kind: type[RecognizerError],
    retry_after_s: float | None,
) -> None:
    async with FakeOpenAI(faults=[Fault(status=status, headers=headers)]) as endpoint:
        with pytest.raises(kind, match=str(status.value)) as refused:
            await openai(endpoint.url).open(REQUEST, Events())
    if isinstance(refused.value, RecognizerBusy):
        assert refused.value.retry_after_s == retry_after_s


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"type": "invalid_request_error", "code": "invalid_api_key"}, RecognizerRefused),
        ({"type": "invalid_request_error", "code": "model_not_found"}, RecognizerRefused),
        ({"type": "insufficient_quota", "code": "insufficient_quota"}, RecognizerRefused),
        ({"type": "tokens", "code": "rate_limit_exceeded"}, RecognizerBusy),
        ({"type": "invalid_request_error", "code": "rate_limit_exceeded"}, RecognizerBusy),
        ({"type": "server_error"}, RecognizerBusy),
        ({"type": "invalid_request_error", "code": "session_expired"}, RecognizerClosed),
    ],
)
async def test_an_error_event_ends_the_stream_with_the_right_error(
    error: dict[str, str | None], kind: type[RecognizerError]
) -> None:
    async with FakeOpenAI(faults=[Fault(error_after_ms=0, error=error)]) as endpoint:
        events = Events()
        stream = await openai(endpoint.url).open(REQUEST, events)
        await until(lambda: events.ended)
        stream.send(tone("alpha", RATE_HZ))
        assert stream.backlog_ms == 0, "a failed stream drops audio"
        await asyncio.wait_for(stream.drain(), 1)
        await stream.close()
    assert type(events.error) is kind


async def test_no_part_of_the_key_is_in_an_error() -> None:
    wrong_key = {
        "type": "invalid_request_error",
        "code": "invalid_api_key",
        "message": "Incorrect API key provided: sk-te***********6789. See your account.",
    }
    async with FakeOpenAI(faults=[Fault(error_after_ms=0, error=wrong_key)]) as endpoint:
        events = Events()
        stream = await openai(endpoint.url).open(REQUEST, events)
        await until(lambda: events.ended)
        await stream.close()
    assert str(events.error) == "OpenAI: Incorrect API key provided: ***. See your account."


async def test_an_invalid_request_after_the_session_was_taken_may_be_tried_again() -> None:
    fault = Fault(error_after_ms=100, error={"type": "invalid_request_error", "code": "odd"})
    async with FakeOpenAI(faults=[fault]) as endpoint:
        events = Events()
        stream = await openai(endpoint.url).open(REQUEST, events)
        await until(lambda: endpoint.connections[0].session)
        stream.send(tone("alpha", RATE_HZ))
        await until(lambda: events.ended)
        await stream.close()
    assert isinstance(events.error, RecognizerClosed)


async def test_a_lost_connection_ends_the_stream_as_closed() -> None:
    async with FakeOpenAI(faults=[Fault(drop_after_ms=100)]) as endpoint:
        events = Events()
        stream = await openai(endpoint.url).open(REQUEST, events)
        stream.send(tone("alpha", RATE_HZ))
        await until(lambda: events.ended)
        await stream.close()
    assert isinstance(events.error, RecognizerClosed)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(1000, RecognizerClosed), (1011, RecognizerClosed), (3000, RecognizerRefused)],
)
async def test_a_close_frame_says_whether_trying_again_helps(
    code: int, kind: type[RecognizerError]
) -> None:
    async with FakeOpenAI(faults=[Fault(close_code=code)]) as endpoint:
        events = Events()
        stream = await openai(endpoint.url).open(REQUEST, events)
        await until(lambda: events.ended)
        await stream.close()
    assert type(events.error) is kind


async def test_nobody_listening_is_an_error_that_names_the_address() -> None:
    with pytest.raises(RecognizerClosed, match=r"ws://127\.0\.0\.1:1\b"):
        await openai("ws://127.0.0.1:1/v1/realtime?secret=x").open(REQUEST, Events())


async def test_cancelling_an_open_leaves_nothing_open() -> None:
    before = asyncio.all_tasks()
    async with FakeOpenAI(faults=[Fault(hang=True)]) as endpoint:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await openai(endpoint.url).open(REQUEST, Events())
    assert asyncio.all_tasks() == before


async def test_a_service_that_does_not_read_ends_the_stream_when_its_queue_is_full() -> None:
    async with FakeOpenAI(faults=[Fault(deaf=True)]) as endpoint:
        events = Events()
        stream = await openai(endpoint.url).open(REQUEST, events)
        second = tone("alpha", RATE_HZ, 1000)
        for _ in range(400):
            stream.send(second)
            await asyncio.sleep(0)
        assert isinstance(events.error, RecognizerBusy)
        assert stream.backlog_ms == 0
        await stream.close()


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{",
        b"[]",
        b'{"type":7}',
        b'{"type":"conversation.item.input_audio_transcription.completed"}',
        b'{"type":"conversation.item.input_audio_transcription.delta","item_id":3}',
        b'{"type":"response.created","item_id":3}',
        b"\xff\xfe",
    ],
)
async def test_strange_messages_are_skipped(message: bytes) -> None:
    async with FakeOpenAI(faults=[Fault(strange=message)]) as endpoint:
        events = Events()
        stream = await openai(endpoint.url).open(REQUEST, events)
        stream.send(tone("alpha", RATE_HZ))
        await stream.drain()
        await stream.close()
    assert [final.text for final in events.finals] == ["alpha"]


@pytest.mark.parametrize("url", ["https://api.openai.com/v1", "wss://", "api.openai.com"])
def test_an_address_that_is_no_websocket_stops_the_start(url: str) -> None:
    with pytest.raises(SettingError, match="OPENAI_REALTIME_URL"):
        OpenAIRecognizer(OpenAISettings(openai_api_key=KEY, openai_realtime_url=url))


@pytest.mark.parametrize("value", [{}, {"type": 3}, {"threshold": 0.5}])
def test_turn_detection_without_a_type_stops_the_start(value: dict[str, object]) -> None:
    with pytest.raises(SettingError, match="OPENAI_TURN_DETECTION"):
        OpenAIRecognizer(OpenAISettings(openai_api_key=KEY, openai_turn_detection=value))
