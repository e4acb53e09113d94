"""The stub of the service that tells voices apart does what the real one does."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import aiohttp
import numpy as np
import pytest

from edge.meeting.wav import wav
from tests.meeting.support import voices
from tests.meeting.support.service import MAX_BODY_BYTES, PATH, VoiceService
from tests.meeting.support.tones import HIGH_HZ, LOW_HZ, voice

ALICE = ["Alice"]


@pytest.mark.parametrize(
    ("score", "candidate", "roster", "wanted"),
    [
        (0.8, ("Alice", 0.95), ALICE, ("auto", "Alice", "Alice")),
        (0.55, ("Bob", 0.9), [], ("confirm", "Bob", None)),
        (0.2, None, [], ("unknown", None, None)),
        (0.2, ("Bob", 0.9), ["Bob"], ("confirm", "Bob", None)),
        (0.55, ("Maybe Name", 0.6), [], ("confirm", "Maybe Name", None)),
        (0.55, ("Bob", 0.95), [], ("confirm", "Bob", "Bob")),
        (0.9, ("Bob", 0.9), ALICE, ("confirm", "Bob", None)),
        (0.9, None, [], ("confirm", None, None)),
    ],
)
def test_decisions_of_a_voice_without_a_name(
    score: float,
    candidate: tuple[str, float] | None,
    roster: list[str],
    wanted: tuple[str, str | None, str | None],
) -> None:
    assert voices.decide(score, candidate, None, roster) == wanted


def test_decisions_of_a_voice_with_a_name() -> None:
    assert voices.decide(0.9, None, "Alice", []) == ("auto", "Alice", "Alice")
    assert voices.decide(0.5, None, "Alice", []) == ("confirm", "Alice", "Alice")
    assert voices.decide(0.5, ("Bob", 0.95), "Alice", []) == ("confirm", "Bob", "Alice")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Hello, my name is alice johnson. nice to meet you.", "Alice Johnson"),
        ("I'm bob", "Bob"),
        ("I'm studying in the netherlands right now", None),
        ("My name is tina tan, and I'm happy to join.", "Tina Tan"),
        ("Please call me al", "Al"),
    ],
)
def test_names(text: str, name: str | None) -> None:
    found = voices.name_in(text)
    assert (found and found[0]) == name


def test_speech_is_cut_at_silence_and_too_short_is_none() -> None:
    tone = np.frombuffer(voice(LOW_HZ, 0.6), np.int16).astype(np.float32) / 32768
    quiet, short = np.zeros(8000, np.float32), tone[:3200]
    assert len(voices.segments(np.concatenate([tone, quiet, tone, quiet]))) == 2
    assert voices.segments(np.concatenate([quiet, short, quiet])) == []
    assert voices.segments(np.zeros(0, np.float32)) == []


def ask(pcm: bytes, **changes: Any) -> dict[str, Any]:
    """A request."""
    audio = {
        "content_b64": base64.b64encode(wav(pcm)).decode(),
        "format": "wav",
        "sample_rate": 16000,
        "channels": 1,
    }
    state = {"clusters": [], "bindings": {}, "config": {}, "capture_by_stream": {}}
    return {"session_id": "s", "audio": audio, "asr_text": "hi", "state": state, **changes}


async def post(service: VoiceService, body: Any, key: str = "") -> tuple[int, Any]:
    """The status and the body of an answer."""
    async with (
        aiohttp.ClientSession() as client,
        client.post(
            service.url + PATH,
            data=io.BytesIO(json.dumps(body).encode()),
            headers={"x-api-key": key},
        ) as response,
    ):
        return response.status, await response.json()


async def test_voices_make_clusters() -> None:
    async with VoiceService() as service:
        _, first = await post(service, ask(voice(LOW_HZ)))
        assert (first["cluster_id"], first["evidence"]["sv_score"]) == ("c1", 1.0)
        state = first["updated_state"]
        _, same = await post(service, ask(voice(LOW_HZ, seed=1), state=state))
        assert same["cluster_id"] == "c1"
        assert same["updated_state"]["clusters"][0]["sample_count"] == 2
        _, other = await post(service, ask(voice(HIGH_HZ), state=same["updated_state"]))
        assert other["cluster_id"] == "c2"
        assert other["evidence"]["sv_score"] < voices.LOW


async def test_names_stay_with_clusters() -> None:
    async with VoiceService() as service:
        _, named = await post(service, ask(voice(LOW_HZ), asr_text="My name is ann."))
        assert (named["decision"], named["speaker_name"]) == ("auto", "Ann")
        _, later = await post(service, ask(voice(LOW_HZ, seed=1), state=named["updated_state"]))
        assert (later["decision"], later["speaker_name"]) == ("auto", "Ann")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (ask(voice(LOW_HZ, 31)), 422),
        (ask(b""), 422),
        (ask(bytes(32000)), 422),
        (ask(voice(LOW_HZ), asr_text="x" * 4001), 422),
        (ask(voice(LOW_HZ), session_id="x" * 129), 422),
        (ask(b"", audio={"content_b64": "AAAA", "format": "wav"}), 400),
        (ask(b"", audio={"content_b64": "AAAA", "format": "flac"}), 400),
        (ask(b"", audio={"content_b64": "A" * MAX_BODY_BYTES, "format": "wav"}), 413),
        ({}, 422),
    ],
)
async def test_limits(body: Any, status: int) -> None:
    async with VoiceService() as service:
        assert (await post(service, body))[0] == status


async def test_a_key_and_a_rate() -> None:
    async with VoiceService(key="k", per_window=2, window_s=60) as service:
        assert (await post(service, ask(voice(LOW_HZ)), "wrong"))[0] == 401
        assert [(await post(service, ask(voice(LOW_HZ)), "k"))[0] for _ in range(3)] == [
            200,
            200,
            429,
        ]
