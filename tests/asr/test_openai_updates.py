"""A session configured again: with what others said, or to see whether the service lives."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from edge.asr import openai_stream
from edge.asr.interface import StreamRequest
from edge.asr.openai_realtime import CONTEXT_SENTENCE, OpenAIRecognizer, OpenAISettings
from edge.errors import RecognizerTimeout
from tests.asr.fakes.openai_endpoint import KEY, RATE_HZ, FakeOpenAI, Fault
from tests.asr.support.events import Events
from tests.asr.support.supervision import openai, until
from tests.asr.support.tones import silence, tone

REQUEST = StreamRequest(track="tag-1", language="de")


def transcription(session: dict[str, Any] | None) -> dict[str, Any]:
    assert session is not None
    given: dict[str, Any] = session["audio"]["input"]["transcription"]
    return given


async def test_what_others_said_follows_the_prompt_of_the_settings() -> None:
    async with FakeOpenAI() as endpoint:
        settings = OpenAISettings(
            openai_api_key=KEY,
            openai_realtime_url=endpoint.url,
            openai_transcription_prompt="names of birds",
        )
        stream = await OpenAIRecognizer(settings).open(REQUEST, Events())
        await until(lambda: endpoint.connections and endpoint.connections[0].session)
        heard = endpoint.connections[0]
        assert transcription(heard.session)["prompt"] == "names of birds"
        assert stream.share("ann: hello\n")
        expected = f"names of birds\n\n{CONTEXT_SENTENCE}\nann: hello\n"
        await until(lambda: transcription(heard.session)["prompt"] == expected)
        assert transcription(heard.session)["language"] == "de"
        assert stream.share("bob: hi\n")
        await until(lambda: "bob: hi" in transcription(heard.session)["prompt"])
        assert "ann" not in transcription(heard.session)["prompt"]
        await stream.close()
        assert not heard.violations


async def test_a_service_that_will_not_be_configured_again_goes_on_as_it_was() -> None:
    refused = {
        "type": "invalid_request_error",
        "code": "invalid_value",
        "event_id": openai_stream.UPDATE_ID,
    }
    async with FakeOpenAI(faults=[Fault(error_after_ms=200, error=refused)]) as endpoint:
        made, events = openai(endpoint.url), Events()
        stream = await made.open(REQUEST, events)
        stream.share("ann: hello\n")
        stream.send(tone("alpha", RATE_HZ) + silence(500, RATE_HZ))
        await until(lambda: events.finals)
        assert not events.ended
        await stream.close()
    assert events.texts == ["alpha"]
    assert made.counts.updates_refused == 1


async def test_a_service_that_lives_answers_a_probe_which_changes_nothing() -> None:
    async with FakeOpenAI() as endpoint:
        stream = await openai(endpoint.url).open(REQUEST, Events())
        await until(lambda: endpoint.connections and endpoint.connections[0].session)
        heard = endpoint.connections[0]
        before, heard_s = heard.session, stream.heard_s
        assert stream.probe()
        await until(lambda: stream.heard_s > heard_s)
        assert heard.session == before
        await stream.close()


async def test_a_turn_is_open_from_the_first_sound_to_its_text() -> None:
    async with FakeOpenAI(delay_s=lambda item: 0.1) as endpoint:
        events = Events()
        stream = await openai(endpoint.url).open(REQUEST, events)
        stream.send(silence(300, RATE_HZ))
        assert not stream.turn_open
        stream.send(tone("alpha", RATE_HZ))
        assert stream.turn_open, "nothing was heard since the sound was sent"
        await asyncio.sleep(0.05)
        assert stream.turn_open, "speech has started"
        stream.send(silence(500, RATE_HZ))
        await until(lambda: events.finals)
        assert not stream.turn_open
        await stream.close()


async def test_an_item_that_gets_no_text_ends_the_stream_though_the_service_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(openai_stream, "ANSWER_S", 0.3)
    async with FakeOpenAI(delay_s=lambda item: 60) as endpoint:
        events = Events()
        stream = await openai(endpoint.url).open(REQUEST, events)
        stream.send(tone("alpha", RATE_HZ))
        stream.commit()
        for _ in range(8):
            stream.probe()
            await asyncio.sleep(0.1)
        assert isinstance(events.error, RecognizerTimeout)
        await stream.close()
