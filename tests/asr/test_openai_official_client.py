"""The official ``openai`` client vouches for the fake endpoint, and for what we send."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import pytest

from edge.asr.openai_events import (
    APPEND_HEAD,
    APPEND_TAIL,
    COMMIT,
    Transcription,
    session_update,
)
from edge.asr.openai_realtime import SERVER_VAD
from tests.asr.fakes.openai_endpoint import KEY, RATE_HZ, FakeOpenAI
from tests.asr.support.tones import sentence
from tests.support.foreign import foreign_python, output_of

SCRIPT = Path(__file__).parent / "support" / "official_client.py"
REQUIREMENTS = ("openai[realtime]>=2.0",)
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def client(request: pytest.FixtureRequest) -> Path:
    """The interpreter that has the official client."""
    cache = request.config.cache
    assert cache is not None
    return await asyncio.to_thread(foreign_python, cache, "openai", REQUIREMENTS)


async def test_the_official_client_is_served_by_the_fake(client: Path, tmp_path: Path) -> None:
    """Its typed events cover the session, speech found, commits, deltas, finals and errors."""
    speech = tmp_path / "speech.pcm"
    speech.write_bytes(sentence("alpha bravo", RATE_HZ, pause_ms=360))
    async with FakeOpenAI() as endpoint:
        base = endpoint.url.partition("/realtime")[0]
        told = json.loads(await output_of(str(client), str(SCRIPT), base, KEY, str(speech)))
        heard = endpoint.connections[0]

    assert told["transcripts"] == ["alpha", "bravo"]
    assert bytes(heard.audio) == speech.read_bytes()
    assert not heard.violations
    assert told["kinds"][:2] == ["session.created", "session.updated"]
    assert {
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
    } <= set(told["kinds"])


async def test_what_we_send_is_valid_to_the_official_types(client: Path) -> None:
    transcription = Transcription("gpt-4o-transcribe", "en", "names of birds")
    messages = [
        session_update("ga", transcription, SERVER_VAD),
        session_update("ga", Transcription("whisper-1"), None),
        APPEND_HEAD + base64.b64encode(bytes(4800)) + APPEND_TAIL,
        COMMIT,
    ]
    told = await output_of(str(client), str(SCRIPT), "--validate", stdin=b"\n".join(messages))
    assert told.split() == [
        "SessionUpdateEvent",
        "SessionUpdateEvent",
        "InputAudioBufferAppendEvent",
        "InputAudioBufferCommitEvent",
    ]
