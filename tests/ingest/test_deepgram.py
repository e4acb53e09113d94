"""/transcribe with Deepgram behind it: what a media server sends reaches the vendor as it is."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from _native.ogg import Muxer
from tests.asr.fakes.deepgram_endpoint import KEY, FakeDeepgram
from tests.asr.support.tones import packets, sentence, silence
from tests.ingest.support.media import client, media_event, start_event
from tests.support.server import Server, running

ENVIRONMENT = {
    "DEEPGRAM_API_KEY": KEY,
    "DEEPGRAM_DIARIZE": "true",
    "DEEPGRAM_INCLUDE_LANGUAGE": "true",
    "DEEPGRAM_TAGS": "gateway",
    "PROVIDERS_PRIORITY": "deepgram,openai",
}
Gateway = tuple[Server, FakeDeepgram]
QUERY = "sendBack=true&sendBackInterim=true&tag=team&deepgram_mip_opt_out=true"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    async with FakeDeepgram() as service:
        settings = {**ENVIRONMENT, "DEEPGRAM_URL": service.url}
        with running("--workers", "1", environment=settings) as server:
            yield server, service


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_opus_goes_through_and_results_name_speaker_and_language(gateway: Gateway) -> None:
    server, service = gateway
    async with client(server, QUERY) as media:
        await media.send(start_event("a"))
        await media.say("a", "alpha charlie bravo")
        await media.send('{"event":"session-end"}')
        assert await media.closed() == (1000, "Session ended")
    heard = service.connections[-1]

    finals = media.finals("a")
    assert [final["transcript"][0]["text"] for final in finals] == [
        "alpha charlie [en]", "bravo [en]",
    ]  # fmt: skip
    assert [final["speaker"] for final in finals] == [0, 1]
    assert {final["language"] for final in finals} == {"en"}
    assert len({final["message_id"] for final in finals}) == 2
    assert all(final["message_id"].startswith("a-") for final in finals)
    assert media.interims("a")[0]["message_id"] == finals[0]["message_id"]
    assert heard.query["encoding"] == ["opus"]
    assert heard.query["tag"] == ["gateway", "team"]
    assert heard.query["mip_opt_out"] == ["true"]
    assert heard.texts == ["CloseStream"]
    assert not heard.violations


async def test_ogg_stays_ogg(gateway: Gateway) -> None:
    server, service = gateway
    muxer = Muxer(9, pre_skip=312)
    made = packets(sentence("delta echo", 48000) + silence(600, 48000))
    pages = [muxer.headers()]
    pages += [muxer.pages(made[at : at + 1]) for at in range(len(made))]
    async with client(server, QUERY + "&encoding=ogg-opus") as media:
        for number, page in enumerate(pages):
            payload = base64.b64encode(page).decode()
            await media.send(media_event("a", number, b"", payload=payload))
        await media.send('{"event":"session-end"}')
        await media.closed()
    heard = service.connections[-1]
    assert [text.split(" [")[0] for text in media.text("a").split("] ")] == ["delta", "echo"]
    assert "encoding" not in heard.query
    assert not heard.violations


async def test_uncoded_audio_goes_as_pcm(gateway: Gateway) -> None:
    server, service = gateway
    pcm = sentence("golf", 16000, pause_ms=600)
    async with client(server, QUERY) as media:
        await media.send(start_event("a", encoding="L16", sampleRate=16000, channels=1))
        await media.send_packets("a", [pcm[at : at + 640] for at in range(0, len(pcm), 640)])
        await media.send('{"event":"session-end"}')
        await media.closed()
    heard = service.connections[-1]
    assert media.text("a") == "golf [en]"
    assert heard.query["encoding"] == ["linear16"]
    assert heard.query["sample_rate"] == ["24000"]
    assert not heard.violations
