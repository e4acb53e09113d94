"""The official ``deepgram-sdk`` vouches for both fake endpoints, and for what we send."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from _native.ogg import Muxer
from edge.asr import deepgram_events, flux_events
from tests.asr.fakes.common import FakeService
from tests.asr.fakes.deepgram_endpoint import KEY, FakeDeepgram
from tests.asr.fakes.flux_endpoint import FakeFlux
from tests.asr.support.tones import packets, sentence, silence
from tests.support.foreign import foreign_python, output_of

SCRIPT = Path(__file__).parent / "support" / "deepgram_client.py"
REQUIREMENTS = ("deepgram-sdk>=7.17",)
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def client(request: pytest.FixtureRequest) -> Path:
    """The interpreter that has the official client."""
    cache = request.config.cache
    assert cache is not None
    return await asyncio.to_thread(foreign_python, cache, "deepgram", REQUIREMENTS)


class Talk:
    """One conversation of the official client with a fake."""

    def __init__(self, client: Path, folder: Path) -> None:
        self._client = client
        self._file = folder / "audio"

    async def __call__(
        self, version: str, service: FakeService, messages: list[bytes], **options: Any
    ) -> list[dict[str, Any]]:
        """What the fake said to it."""
        self._file.write_bytes(b"".join(messages))
        told = json.dumps({**options, "sizes": [len(message) for message in messages]})
        output = await output_of(
            str(self._client), str(SCRIPT), version, service.url, KEY, str(self._file), told
        )
        answer: list[dict[str, Any]] = json.loads(output)
        assert not service.connections[0].violations
        return answer


@pytest.fixture
def talk(client: Path, tmp_path: Path) -> Talk:
    return Talk(client, tmp_path)


def cut(pcm: bytes, size: int) -> list[bytes]:
    return [pcm[at : at + size] for at in range(0, len(pcm), size)]


async def test_the_client_is_served_pcm_by_the_fake_of_v1(talk: Talk) -> None:
    """Interims, finals, the answer to Finalize, Metadata and a normal closure, all well-typed."""
    pcm = sentence("alpha bravo", 16000, pause_ms=400) + sentence("charlie", 16000)
    async with FakeDeepgram() as deepgram:
        told = await talk(
            "v1", deepgram, cut(pcm, 3200), model="nova-3", language="en", encoding="linear16",
            sample_rate="16000", interim_results="true", punctuate="true", diarize="true",
            endpointing="100", tag=["a", "b"],
        )  # fmt: skip
        heard = deepgram.connections[0]

    results = [one for one in told if one["type"] == "Results"]
    finals = [one for one in results if one["is_final"]]
    texts = [one["channel"]["alternatives"][0]["transcript"] for one in finals]
    assert texts == ["Alpha.", "Bravo.", "Charlie."] + [""] * (len(finals) - 3)
    assert any(not one["is_final"] for one in results)
    assert finals[2]["from_finalize"]
    word = finals[1]["channel"]["alternatives"][0]["words"][0]
    assert (word["start"], word["end"], word["speaker"]) == (1.0, 1.6, 1)
    assert [one["type"] for one in told[-2:]] == ["Metadata", "closed"]
    assert told[-1]["code"] == 1000
    assert heard.texts == ["KeepAlive", "Finalize", "CloseStream"]
    assert heard.query["tag"] == ["a", "b"]


@pytest.mark.parametrize("container", [False, True])
async def test_the_client_is_served_opus_by_the_fake_of_v1(talk: Talk, container: bool) -> None:
    audio = packets(sentence("delta echo", 48000, pause_ms=300) + silence(200, 48000))
    options: dict[str, Any] = {"encoding": "opus", "sample_rate": "48000"}
    if container:
        muxer, options = Muxer(7, pre_skip=312), {}
        headers = muxer.headers()
        pages = [muxer.pages(audio[at : at + 5]) for at in range(0, len(audio), 5)]
        audio = [headers, *pages]
    async with FakeDeepgram() as deepgram:
        told = await talk("v1", deepgram, audio, model="nova-2", language="multi", **options)
    finals = [one for one in told if one["type"] == "Results" and one["is_final"]]
    said = [one["channel"]["alternatives"][0] for one in finals]
    assert " ".join(one["transcript"] for one in said).strip() == "delta echo"
    assert said[0]["languages"] == ["en"]


async def test_the_client_is_served_by_the_fake_of_flux(talk: Talk) -> None:
    """Every event of the state machine, numbered, and no close code after CloseStream."""
    pcm = sentence("alpha bravo", 16000) + silence(200, 16000)
    pcm += sentence("charlie", 16000, pause_ms=600) + sentence("delta", 16000)
    async with FakeFlux() as flux:
        told = await talk(
            "v2", flux, cut(pcm, 2560), model="flux-general-multi", encoding="linear16",
            sample_rate="16000", eot_threshold="0.8", eager_eot_threshold="0.5",
            eot_timeout_ms="3000", keyterm=["alpha", "bravo"], language_hint=["en", "es"],
            tag=["a"],
        )  # fmt: skip
        heard = flux.connections[0]

    messages, closed = told[:-1], told[-1]
    assert [one["sequence_id"] for one in messages] == list(range(len(messages)))
    turns = [one for one in messages if one["type"] == "TurnInfo"]
    events = [one["event"] for one in turns if one["event"] != "Update"]
    assert events == [
        "StartOfTurn", "EagerEndOfTurn", "TurnResumed", "EagerEndOfTurn", "EndOfTurn",
        "StartOfTurn", "EndOfTurn",
    ]  # fmt: skip
    ends = [one for one in turns if one["event"] == "EndOfTurn"]
    assert [one["transcript"] for one in ends] == ["alpha bravo charlie", "delta"]
    assert [one["trigger"] for one in ends] == ["model", "manual"]
    assert ends[0]["words"][2]["start"] == pytest.approx(1.4)
    assert closed["code"] in (None, 1005), "there is no close code"
    assert heard.texts == ["ForceEndTurn", "CloseStream"]


async def test_what_we_send_is_valid_to_the_official_types(client: Path) -> None:
    messages = {
        "v1": (deepgram_events.KEEP_ALIVE, deepgram_events.FINALIZE, deepgram_events.CLOSE_STREAM),
        "v2": (flux_events.FORCE_END_TURN, flux_events.CLOSE_STREAM),
    }
    lines = [f"{version} {text.decode()}" for version in messages for text in messages[version]]
    told = await output_of(str(client), str(SCRIPT), "validate", stdin="\n".join(lines).encode())
    assert told.split() == [
        "ListenV1KeepAlive",
        "ListenV1Finalize",
        "ListenV1CloseStream",
        "ListenV2ForceEndTurn",
        "ListenV2CloseStream",
    ]
