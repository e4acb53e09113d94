"""Asking the service that tells voices apart: deadlines, repetition, a circuit, sound answers."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

import pytest

from edge.asr.breaker import Breaker
from edge.errors import InferenceFailed, SettingError
from edge.meeting.inference import AT_ONCE, Audio, Inference, ResolveRequest
from edge.meeting.records import Captures, Evidence, Person
from edge.meeting.settings import MeetingSettings
from edge.meeting.status import SpeakerState
from edge.meeting.wav import wav
from tests.meeting.support.service import VoiceService
from tests.meeting.support.tones import HIGH_HZ, LOW_HZ, voice
from tests.meeting.support.waiting import until


def settings(service: VoiceService, timeout_ms: int = 5000, **changes: Any) -> MeetingSettings:
    """Those of a gateway that uses the service."""
    return MeetingSettings(
        inference_base_url=f"{service.url}/", inference_timeout_ms=timeout_ms, **changes
    )


def question(session: str = "s", pitch_hz: float = LOW_HZ, text: str = "hello") -> ResolveRequest:
    """Whose voice is this?"""
    content = base64.b64encode(wav(voice(pitch_hz))).decode()
    return ResolveRequest(
        session_id=session,
        audio=Audio(content_b64=content, format="wav", sample_rate=16000, channels=1),
        asr_text=text,
        state=SpeakerState(
            clusters=(),
            bindings={},
            roster=(Person("Ann", "a@x"), Person("Bob")),
            config={"interviewer_name": "Bill"},
            capture_by_stream=Captures(),
        ),
    )


ANSWER = {
    "session_id": "s",
    "cluster_id": "c1",
    "speaker_name": None,
    "decision": "unknown",
    "evidence": None,
    "updated_state": {"clusters": [], "bindings": {}, "roster": [], "config": {}},
}


async def test_the_call_has_the_shape_of_the_protocol() -> None:
    async with VoiceService(key="k") as service:
        inference = Inference(settings(service, inference_api_key="k"))
        await inference.start()
        answer = await inference.resolve(question(text="My name is ann"))
        await inference.stop()
    (asked,), (headers,) = service.asked, service.headers
    assert list(asked) == ["session_id", "audio", "asr_text", "state"]
    assert list(asked["audio"]) == ["content_b64", "format", "sample_rate", "channels"]
    assert list(asked["state"]) == [
        "clusters",
        "bindings",
        "roster",
        "config",
        "capture_by_stream",
    ]
    assert asked["state"]["roster"] == [{"name": "Ann", "email": "a@x"}, {"name": "Bob"}]
    assert (headers["content-type"], headers["x-api-key"]) == ("application/json", "k")
    assert (answer.cluster_id, answer.speaker_name, answer.decision) == ("c1", "Ann", "auto")
    assert answer.evidence == Evidence(
        sv_score=1.0,
        threshold_low=0.45,
        threshold_high=0.7,
        segment_count=1,
        name_hit="Ann",
        roster_hit=True,
    )
    assert answer.updated_state.bindings == {"c1": "Ann"}


async def test_no_key_is_sent_when_there_is_none_and_a_wrong_one_is_not_repeated() -> None:
    async with VoiceService(key="k") as service:
        inference = Inference(settings(service))
        await inference.start()
        with pytest.raises(InferenceFailed, match="answered 401"):
            await inference.resolve(question())
        await inference.stop()
    assert service.answered == {401: 1}
    assert "x-api-key" not in service.headers[0]


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 302])
async def test_what_would_be_refused_again_is_not_repeated(status: int) -> None:
    async with VoiceService() as service:
        inference = Inference(settings(service))
        await inference.start()
        service.fail(status, b"secret words of the body")
        with pytest.raises(InferenceFailed, match=f"answered {status}$"):
            await inference.resolve(question())
        await inference.stop()
    assert service.answered.total() == 1


async def test_a_failure_of_the_service_or_the_network_is_repeated() -> None:
    async with VoiceService() as service:
        inference = Inference(settings(service))
        await inference.start()
        service.fail(503)
        service.faults.append(None)
        answer = await inference.resolve(question())
        await inference.stop()
    assert answer.cluster_id == "c1"
    assert service.answered[200] == 1


async def test_a_hanging_service_is_given_up_at_the_deadline() -> None:
    async with VoiceService() as service:
        inference = Inference(settings(service, timeout_ms=300))
        await inference.start()
        service.open.clear()
        began = time.monotonic()
        with pytest.raises(InferenceFailed, match="did not answer in time"):
            await inference.resolve(question())
        assert 0.25 < time.monotonic() - began < 3
        await inference.stop()


async def test_nothing_listens() -> None:
    async with VoiceService() as service:
        gone = settings(service)
    inference = Inference(gone)
    await inference.start()
    with pytest.raises(InferenceFailed, match="cannot be reached"):
        await inference.resolve(question())
    await inference.stop()


async def test_w37_a_service_that_asks_for_patience_gets_it() -> None:
    """With patience a busy service turns no utterance into an unknown speaker."""
    async with VoiceService(per_window=2, window_s=0.6) as service:
        inference = Inference(settings(service, timeout_ms=400))
        await inference.start()
        answers = await asyncio.gather(
            *(inference.resolve(question(), patience_s=30) for _ in range(6))
        )
        await inference.stop()
    assert [answer.cluster_id for answer in answers] == ["c1"] * 6
    assert service.answered[200] == 6


async def test_w37_without_patience_a_busy_service_fails_at_once() -> None:
    async with VoiceService() as service:
        inference = Inference(settings(service))
        await inference.start()
        service.fail(429, Retry_After="30")
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(InferenceFailed, match="is busy"):
                await inference.resolve(question())
            assert time.monotonic() - began < 5
        await inference.stop()
    assert service.answered == {429: 1}, "the second call does not bother the service"


async def test_calls_at_once_are_bounded() -> None:
    async with VoiceService() as service:
        inference = Inference(settings(service))
        await inference.start()
        service.open.clear()
        calls = [asyncio.create_task(inference.resolve(question())) for _ in range(3 * AT_ONCE)]
        await until(lambda: service.at_once == AT_ONCE)
        service.open.set()
        await asyncio.gather(*calls)
        await inference.stop()
    assert service.most_at_once == AT_ONCE


async def test_more_calls_than_memory_is_for_fail_at_once() -> None:
    async with VoiceService() as service:
        inference = Inference(settings(service))
        await inference.start()
        service.open.clear()
        calls = [asyncio.create_task(inference.resolve(question())) for _ in range(300)]
        done, waiting = await asyncio.wait(calls, timeout=1)
        assert len(waiting) == 256
        for call in done:
            with pytest.raises(InferenceFailed, match="Too many calls"):
                await call
        for call in waiting:
            call.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        service.open.set()
        await inference.resolve(question())
        await inference.stop()


async def test_a_service_that_fails_is_left_alone_and_tried_again() -> None:
    async with VoiceService() as service:
        inference = Inference(settings(service), Breaker(3, 0.4))
        await inference.start()
        for _ in range(3):
            service.fail(500)
        with pytest.raises(InferenceFailed):
            await inference.resolve(question())
        with pytest.raises(InferenceFailed, match="left alone"):
            await inference.resolve(question())
        assert service.answered == {500: 3}

        async def works() -> bool:
            try:
                await inference.resolve(question())
            except InferenceFailed:
                return False
            return True

        await until(works)
        await inference.stop()


def without(name: str) -> dict[str, Any]:
    """An answer that lacks a member."""
    return {key: value for key, value in ANSWER.items() if key != name}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"null",
        b"<html>",
        b"\xff",
        without("updated_state"),
        without("cluster_id"),
        without("decision"),
        {**ANSWER, "decision": "perhaps"},
        {**ANSWER, "cluster_id": ""},
        {**ANSWER, "session_id": "another"},
        {**ANSWER, "speaker_name": 7},
        {**ANSWER, "evidence": {"sv_score": "high"}},
        {**ANSWER, "updated_state": {"bindings": {}}},
        {**ANSWER, "updated_state": {"clusters": {}, "bindings": {}}},
        {**ANSWER, "updated_state": {"clusters": [], "bindings": {"c1": None}}},
        {**ANSWER, "updated_state": {"clusters": [{"cluster_id": "c1"}], "bindings": {}}},
        {
            **ANSWER,
            "updated_state": {
                "clusters": [{"cluster_id": "c1", "centroid": [1], "sample_count": 1}] * 2,
                "bindings": {},
            },
        },
        b"[" * 5_000_000,
    ],
)
async def test_w30_an_answer_that_is_not_sound_is_none(answer: bytes | dict[str, Any]) -> None:
    async with VoiceService() as service:
        inference = Inference(settings(service))
        await inference.start()
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        for _ in range(3):
            service.fail(200, body)
        with pytest.raises(InferenceFailed, match=r"cannot be used|too long"):
            await inference.resolve(question())
        await inference.stop()


async def test_a_sound_answer_with_members_nobody_knows_is_one() -> None:
    async with VoiceService() as service:
        inference = Inference(settings(service))
        await inference.start()
        service.fail(200, json.dumps({**ANSWER, "model": "v9"}).encode())
        assert (await inference.resolve(question())).decision == "unknown"
        await inference.stop()


async def test_a_long_session_name_goes_in_another_form() -> None:
    """The service takes 128 characters, a session has up to 256 bytes."""
    async with VoiceService() as service:
        inference = Inference(settings(service))
        await inference.start()
        await inference.resolve(question("é" * 128))
        await inference.resolve(question("x" * 200))
        await inference.resolve(question("x" * 201, HIGH_HZ))
        await inference.stop()
    names = [asked["session_id"] for asked in service.asked]
    assert names[0] == "é" * 128
    assert len(set(names)) == 3


async def test_w31_errors_hold_nothing_of_the_service() -> None:
    async with VoiceService() as service:
        inference = Inference(settings(service, inference_api_key="hush"))
        await inference.start()
        service.fail(400, b"a stack trace")
        with pytest.raises(InferenceFailed) as failure:
            await inference.resolve(question())
        await inference.stop()
    for secret in ("hush", "stack", service.url, "hello"):
        assert secret not in str(failure.value)


async def test_without_a_service_it_says_what_to_set() -> None:
    inference = Inference(MeetingSettings())
    assert not inference.is_configured
    await inference.start()
    with pytest.raises(InferenceFailed, match="INFERENCE_BASE_URL"):
        await inference.resolve(question())
    await inference.stop()


@pytest.mark.parametrize("url", ["inference:8000", "ftp://x", "http://", "http://x:port"])
def test_an_address_that_is_none_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(SettingError, match="inference_base_url"):
        Inference(MeetingSettings(inference_base_url=url))
