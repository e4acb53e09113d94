"""Clients that nobody here wrote are served: OpenAI's and Deepgram's, and the snippets of the page.

Each shows its key as it always does. Real speech through the embedded recognizer; words are judged.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.asr.test_deepgram_official_client import REQUIREMENTS as DEEPGRAM
from tests.asr.test_deepgram_official_client import SCRIPT as DEEPGRAM_SCRIPT
from tests.asr.test_openai_official_client import REQUIREMENTS as OPENAI
from tests.ingest.support.doors import (
    ENVIRONMENT,
    errors,
    mulaw,
    ogg_opus,
    speech,
    wav,
    webm_opus,
)
from tests.support.foreign import foreign_python, output_of
from tests.support.server import REPOSITORY, Server, running

PAGE = REPOSITORY / "docs" / "front-doors.md"
KEY = "your-own-api-key"
ASKED = {"x-api-key": KEY}
SCRIPT = Path(__file__).parent / "support" / "openai_door.py"
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Server]:
    environment = {**ENVIRONMENT, "EDGESCRIBE_API_KEYS": f"{KEY}:ingest+read"}
    with running("--workers", "1", environment=environment) as server:
        yield server


@pytest.fixture(scope="module")
def clients(request: pytest.FixtureRequest) -> dict[str, Path]:
    """The interpreters that have the official clients."""
    cache = request.config.cache
    assert cache is not None
    return {
        "openai": foreign_python(cache, "openai", OPENAI),
        "deepgram": foreign_python(cache, "deepgram", DEEPGRAM),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The speech in files."""
    folder = tmp_path_factory.mktemp("speech")
    (folder / "speech.wav").write_bytes(wav())
    (folder / "speech-24k.wav").write_bytes(wav(24000))
    (folder / "speech.ogg").write_bytes(ogg_opus())
    (folder / "speech.webm").write_bytes(webm_opus())
    (folder / "speech.mulaw").write_bytes(mulaw())
    (folder / "speech.pcm").write_bytes(speech(16000))
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(gateway: Server, clients: dict[str, Path], folder: Path) -> dict[str, Any]:
    """All that the official openai client was told."""
    names = ("speech.mulaw", "speech.wav", "speech.ogg", "speech.webm")
    output = await output_of(
        str(clients["openai"]), str(SCRIPT), gateway.url, *(str(folder / name) for name in names)
    )
    answer: dict[str, Any] = json.loads(output)
    return answer


def of(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


async def test_the_openai_client_ends_turns_of_its_own(told: dict[str, Any]) -> None:
    events = told["events"]
    completed = of(events, "conversation.item.input_audio_transcription.completed")
    committed = of(events, "input_audio_buffer.committed")
    first, second = (event["item_id"] for event in committed)
    texts = {event["item_id"]: event["transcript"] for event in completed}
    assert errors(f"{texts[first]} {texts[second]}") < 0.2, "they may come in any order"
    assert [event["usage"]["seconds"] for event in completed] == pytest.approx([4.3, 4.3], abs=0.01)
    assert [event["previous_item_id"] for event in committed] == [None, first]
    added = of(events, "conversation.item.added")
    done = of(events, "conversation.item.done")
    assert [event["item"]["id"] for event in added] == [first, second]
    assert [event["item"] for event in done] == [event["item"] for event in added]
    assert not of(events, "input_audio_buffer.speech_started"), "the client says what is a turn"


async def test_what_comes_back_is_what_is_in_force(told: dict[str, Any]) -> None:
    created, updated = told["events"][:2]
    assert (created["type"], updated["type"]) == ("session.created", "session.updated")
    source = updated["session"]["audio"]["input"]
    assert source["format"] == {"type": "audio/pcmu"}
    assert source["transcription"] == {
        "model": "gpt-4o-mini-transcribe",
        "language": "en",
        "prompt": "",
    }
    assert source["turn_detection"] is None


async def test_mistakes_are_answered_in_the_services_form(told: dict[str, Any]) -> None:
    empty, unknown = (event["error"] for event in of(told["events"], "error"))
    assert empty["code"] == "input_audio_buffer_commit_empty"
    assert (unknown["code"], unknown["param"]) == ("invalid_value", "type")
    assert {empty["type"], unknown["type"]} == {"invalid_request_error"}
    assert of(told["events"], "input_audio_buffer.cleared")


async def test_clients_of_the_beta_are_told_its_names(told: dict[str, Any]) -> None:
    assert told["beta"] == [
        "transcription_session.created",
        "transcription_session.updated",
        "input_audio_buffer.committed",
        "conversation.item.created",
        "conversation.item.input_audio_transcription.completed",
    ]


async def test_a_door_feeds_a_session_like_any_other(told: dict[str, Any], gateway: Server) -> None:
    log = json.loads(gateway.get("/v1/sessions/official/export?format=json", headers=ASKED).body)
    finals = [each for each in log["entries"] if each["kind"] == "final"]
    finals.sort(key=lambda final: final["entry"]["start_ms"])
    assert errors(" ".join(final["entry"]["text"] for final in finals)) < 0.2
    assert {final["track"] for final in finals} == {"anna"}


@pytest.mark.parametrize("name", ["speech.wav", "speech.ogg", "speech.webm", "text"])
async def test_the_openai_client_has_files_transcribed(told: dict[str, Any], name: str) -> None:
    assert errors(told["files"][name]) < 0.2


async def test_files_become_subtitles(told: dict[str, Any]) -> None:
    srt, vtt = told["files"]["srt"], told["files"]["vtt"]
    assert srt.startswith("1\n00:00:01,") and " --> " in srt
    assert vtt.startswith("WEBVTT\n\n00:00:01.")
    for subtitles in (srt, vtt):
        cues = re.sub(r"^(WEBVTT|\d+|.* --> .*)$", "", subtitles, flags=re.M)
        assert errors(cues) < 0.2


async def test_times_of_a_file_are_told(told: dict[str, Any], gateway: Server) -> None:
    verbose = told["files"]["verbose"]
    assert verbose["duration"] == pytest.approx(8.6, abs=0.1)
    assert errors(" ".join(segment["text"] for segment in verbose["segments"])) < 0.2
    assert errors(" ".join(word["word"] for word in verbose["words"])) < 0.2
    starts = [word["start"] for word in verbose["words"]]
    assert starts == sorted(starts) and 1.0 < starts[0] < 1.6
    assert all(segment["avg_logprob"] < 0 for segment in verbose["segments"])
    text = gateway.get("/v1/sessions/a%20file/export?format=txt", headers=ASKED).body
    assert b"best of times" in text


async def test_a_file_is_told_while_it_is_heard(told: dict[str, Any]) -> None:
    *deltas, done = told["files"]["stream"]
    assert {delta["type"] for delta in deltas} == {"transcript.text.delta"}
    assert done["type"] == "transcript.text.done"
    assert done["text"] == "".join(delta["delta"] for delta in deltas)
    assert errors(done["text"]) < 0.2 and len(deltas) > 1


async def test_files_that_cannot_be_heard_are_refused_by_name(told: dict[str, Any]) -> None:
    found = [(status, body["param"]) for status, body in told["files"]["errors"]]
    assert found == [
        (400, "file"),
        (400, "file"),
        (404, "model"),
        (400, "language"),
        (400, "response_format"),
        (400, "include"),
        (400, "unheard"),
        (400, "timestamp_granularities[]"),
        (413, None),
    ]
    mp3 = told["files"]["errors"][0][1]
    assert "MP3" in mp3["message"] and "wav" in mp3["message"]


async def test_the_deepgram_client_is_served(
    gateway: Server, clients: dict[str, Path], folder: Path
) -> None:
    """Interims, finals, the answer to Finalize, Metadata, a normal closure, all well-typed."""
    options = {
        "model": "nova-3", "encoding": "linear16", "sample_rate": "16000", "language": "en",
        "interim_results": "true", "vad_events": "true", "utterance_end_ms": "1000",
        "punctuate": "true", "keyterm": ["wisdom"], "sizes": [3200] * (len(speech(16000)) // 3200),
        "every_s": 0.1,  # as it is spoken: a busy machine owes a burst no interims
    }  # fmt: skip
    output = await output_of(
        str(clients["deepgram"]), str(DEEPGRAM_SCRIPT), "v1", f"ws://{gateway.address}", KEY,
        str(folder / "speech.pcm"), json.dumps(options),
    )  # fmt: skip
    told: list[dict[str, Any]] = json.loads(output)
    results = of(told, "Results")
    finals = [one for one in results if one["is_final"]]
    best = [one["channel"]["alternatives"][0] for one in finals]
    assert errors(" ".join(one["transcript"] for one in best)) < 0.2
    assert any(not one["is_final"] for one in results)
    assert [one["from_finalize"] for one in finals] == [False] * (len(finals) - 1) + [True]
    assert of(told, "SpeechStarted")[0]["channel"] == [0, 1]
    word = best[0]["words"][0]
    assert (word["word"], word["punctuated_word"]) == ("it", "It")
    assert word["start"] == pytest.approx(1.2, abs=0.2) == finals[0]["start"]
    assert [one["type"] for one in told[-2:]] == ["Metadata", "closed"]
    assert told[-1]["code"] == 1000
    metadata = told[-2]
    assert metadata["duration"] == pytest.approx(8.6, abs=0.1)
    assert [warning["parameter"] for warning in metadata["warnings"]] == ["keyterm"]


async def test_the_snippets_of_the_page_work(
    gateway: Server, clients: dict[str, Path], folder: Path
) -> None:
    """Each of them, with nothing changed but the address."""
    snippets = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    assert len(snippets) == 3

    async def run(number: int, snippet: str) -> str:
        script = folder / f"snippet-{number}.py"
        text = snippet.replace("localhost:8080", gateway.address)
        for name in ("speech.wav", "speech-24k.wav"):
            text = text.replace(f'"{name}"', repr(str(folder / name)))
        script.write_text(text)
        vendor = "deepgram" if "deepgram" in snippet else "openai"
        return await output_of(str(clients[vendor]), str(script))

    realtime, file, live = await asyncio.gather(*(run(*each) for each in enumerate(snippets)))
    assert "best of times" in realtime
    assert errors(file) < 0.2
    assert errors(live) < 0.2
