"""Every form of audio through a running gateway: Ogg, WebM, PCM, and changes between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from _native.ogg import Muxer
from tests.asr.fakes.deepgram_endpoint import KEY as DEEPGRAM_KEY
from tests.asr.fakes.deepgram_endpoint import FakeDeepgram
from tests.asr.fakes.openai_endpoint import FakeOpenAI
from tests.asr.support.tones import packets, sentence, silence
from tests.ingest.support.media import (
    MediaClient,
    client,
    gateway,
    l16_packets,
    media_event,
    start_event,
)
from tests.support.containers import (
    CHROMIUM_WORDS,
    chromium_recording,
    opus_head,
    webm,
    webm_header,
)
from tests.support.server import Server, running

TURN_MS = 400
"""The service ends an utterance so much later than its sound, at most."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Server]:
    async with gateway(FakeOpenAI()) as (server, _):
        yield server


pytestmark = pytest.mark.asyncio(loop_scope="module")


def spoken(words: str, pause_ms: int = 600) -> list[bytes]:
    return packets(sentence(words, 48000) + silence(pause_ms, 48000))


def ogg(opus: list[bytes], a_page: int = 5) -> bytes:
    muxer = Muxer(4711)
    return muxer.headers() + b"".join(
        muxer.pages(opus[at : at + a_page]) for at in range(0, len(opus), a_page)
    )


async def send_pieces(
    media: MediaClient, tag: str, data: bytes, size: int, *, first: int = 0, timestamp: int = 0
) -> None:
    for number, at in enumerate(range(0, len(data), size), first):
        event = media_event(tag, number, data[at : at + size], timestamp=str(timestamp))
        await media.send(event)


@pytest.mark.parametrize("size", [50, 333, 4000, 40_000])
@pytest.mark.parametrize("encoding", ["ogg-opus", "webm"])
async def test_pieces_of_a_container_are_understood_without_a_start(
    shared: Server, encoding: str, size: int
) -> None:
    opus = spoken("alpha echo india")
    data = ogg(opus) if encoding == "ogg-opus" else webm(opus)
    async with client(shared, f"sendBack=true&times=true&encoding={encoding}") as media:
        await send_pieces(media, "a", data, size, timestamp=48_000 * 5)
        await media.until(media.finals)
        assert media.text("a") == "alpha echo india"
        final = media.finals("a")[0]
        assert final["start_ms"] == pytest.approx(5000, abs=150)
        assert 6800 <= final["end_ms"] <= 6800 + TURN_MS


@pytest.mark.parametrize("name", ["ogg", "ogg-opus", "OGG", "webm", "WebM"])
async def test_a_start_says_which_container_its_tag_sends(shared: Server, name: str) -> None:
    opus = spoken("bravo golf")
    async with client(shared) as media:
        await media.send(start_event("a", encoding=name))
        await send_pieces(media, "a", webm(opus) if name.lower() == "webm" else ogg(opus), 700)
        await media.say("b", "delta")
        await media.until(lambda: media.finals("a") and media.finals("b"))
        assert (media.text("a"), media.text("b")) == ("bravo golf", "delta")


async def test_a_start_of_opus_on_a_connection_of_ogg_means_ogg(shared: Server) -> None:
    async with client(shared, "sendBack=true&encoding=ogg-opus") as media:
        await media.send(start_event("a"))
        await send_pieces(media, "a", ogg(spoken("hotel charlie")), 500)
        await media.until(media.finals)
        assert media.text("a") == "hotel charlie"


async def test_a_stream_joined_midway_is_understood(shared: Server) -> None:
    data = ogg(spoken("alpha bravo charlie"))
    midway = data[data.index(b"OggS", len(data) // 5) :]
    async with client(shared, "sendBack=true&encoding=ogg-opus") as media:
        await send_pieces(media, "a", midway, 600)
        await media.until(media.finals)
        assert media.text("a").endswith("bravo charlie")


async def test_the_form_may_change_over_and_over_and_no_word_is_lost(shared: Server) -> None:
    words = ["alpha", "bravo", "charlie", "delta", "echo"]
    length = 30 * 960
    async with client(shared, "sendBack=true&times=true") as media:
        for number, packet in enumerate(packets(sentence(words[0], 48000))):
            await media.send(media_event("a", 900 + number, packet, timestamp=str(number * 960)))
        await media.send(start_event("a", encoding="l16", sampleRate=16000, channels=1))
        for number, packet in enumerate(l16_packets(sentence(words[1], 16000), 16000, 1, "l16"), 0):
            at = length + number * 960
            await media.send(media_event("a", number, packet, timestamp=str(at)))
        await media.send(start_event("a", encoding="ogg"))
        data = ogg(packets(sentence(words[2], 48000)))
        await send_pieces(media, "a", data, 500, first=77, timestamp=2 * length)
        await media.send(start_event("a", encoding="webm"))
        data = webm(packets(sentence(words[3], 48000)))
        await send_pieces(media, "a", data, 500, first=5, timestamp=3 * length)
        await media.send(start_event("a"))
        for number, packet in enumerate(spoken(words[4])):
            at = 4 * length + number * 960
            await media.send(media_event("a", 9000 + number, packet, timestamp=str(at)))
        await media.until(media.finals)
        assert media.text("a") == " ".join(words)
        assert 3000 <= media.finals("a")[-1]["end_ms"] <= 3000 + TURN_MS


@pytest.mark.parametrize(
    ("encoding", "payload", "reason"),
    [
        ("ogg", b"ID3" + bytes(30_000), "no Ogg page"),
        ("webm", webm_header("A_VORBIS"), "A_VORBIS"),
        (
            "webm",
            webm_header(private=opus_head(6, family=b"\x01\x04\x02" + bytes(6))),
            "6 channels",
        ),
    ],
)
async def test_what_is_no_such_container_refuses_its_tag_until_a_good_start_comes(
    shared: Server, encoding: str, payload: bytes, reason: str
) -> None:
    async with client(shared, "sendBack=true&errors=true") as media:
        await media.send(start_event("a", encoding=encoding))
        for number in range(5):
            await media.send(media_event("a", number, payload))
        await media.until(lambda: media.of("error"))
        await media.say("b", "bravo")
        await media.until(lambda: media.finals("b"))
        assert [(e["tag"], e["code"]) for e in media.of("error")] == [("a", "bad_format")]
        assert reason in media.of("error")[0]["message"]
        await media.send(start_event("a", encoding="ogg"))
        await send_pieces(media, "a", ogg(spoken("golf")), 900)
        await media.until(lambda: media.finals("a"))
        assert (media.text("a"), media.text("b")) == ("golf", "bravo")


@pytest.mark.parametrize(
    "media_format",
    [
        {"encoding": ""},
        {"encoding": "ogg-vorbis"},
        {"encoding": 5},
        {"encoding": None},
        {"sampleRate": 0},
        {"sampleRate": -48000},
        {"sampleRate": "fast"},
        {"sampleRate": 48000.5},
        {"sampleRate": None},
        {"sampleRate": True},
        {"channels": 0},
        {"channels": "two"},
    ],
)
async def test_a_format_that_is_none_refuses_its_tag_until_a_valid_one_comes(
    shared: Server, media_format: dict[str, object]
) -> None:
    async with client(shared, "sendBack=true&errors=true") as media:
        await media.send(start_event("a", **media_format))
        await media.say("a", "alpha", pause_ms=0)
        await media.send(start_event("a"))
        await media.say("a", "hotel")
        await media.until(media.finals)
        assert media.text("a") == "hotel"
        assert [error["code"] for error in media.of("error")] == ["bad_format"]


async def test_a_damaged_page_costs_its_own_sound_only(shared: Server) -> None:
    data = bytearray(ogg(spoken("alpha bravo charlie delta"), a_page=2))
    data[len(data) // 2] ^= 0xFF
    async with client(shared, "sendBack=true&encoding=ogg-opus") as media:
        await send_pieces(media, "a", bytes(data), 800)
        await media.until(media.finals)
        assert media.text("a") == "alpha bravo charlie delta"


async def test_many_tags_send_containers_at_once(shared: Server) -> None:
    words = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot"]
    async with client(shared, "sendBack=true&encoding=webm") as media:
        await asyncio.gather(*(send_pieces(media, word, webm(spoken(word)), 450) for word in words))
        await media.until(lambda: len(media.finals()) == len(words))
        assert {word: media.text(word) for word in words} == {word: word for word in words}


@pytest.mark.parametrize("numbered", [True, False])
async def test_what_a_browser_records_is_understood(shared: Server, numbered: bool) -> None:
    data = chromium_recording()
    async with client(shared, "sendBack=true&times=true&encoding=webm") as media:
        for number, at in enumerate(range(0, len(data), 170)):
            members = {} if numbered else {"chunk": None, "timestamp": None}
            event = media_event("me", number, data[at : at + 170], **{"timestamp": "0", **members})
            await media.send(event)
        await media.until(lambda: media.finals("me"))
        assert media.text("me") == CHROMIUM_WORDS
        assert 2000 <= media.finals("me")[0]["end_ms"] <= 2300 + TURN_MS


async def test_a_recognizer_of_packets_hears_every_form_in_turn() -> None:
    """Deepgram takes Opus and Ogg as they are, PCM on a connection of its own."""
    async with FakeDeepgram() as service:
        settings = {
            "DEEPGRAM_API_KEY": DEEPGRAM_KEY,
            "DEEPGRAM_URL": service.url,
            "PROVIDERS_PRIORITY": "deepgram",
        }
        with running("--workers", "1", environment=settings) as server:
            async with client(server, "sendBack=true&times=true") as media:
                await media.say("a", "alpha", pause_ms=0)
                await media.send(start_event("a", encoding="l16", sampleRate=16000, channels=1))
                await media.send_packets(
                    "a", l16_packets(sentence("bravo", 16000), 16000, 1, "l16")
                )
                await media.send(start_event("a", encoding="ogg"))
                data = ogg(packets(sentence("charlie", 48000)))
                await send_pieces(media, "a", data, 700, timestamp=160 * 960)
                await media.send(start_event("a", encoding="webm"))
                data = webm(packets(sentence("delta", 48000)))
                await send_pieces(media, "a", data, 700, timestamp=190 * 960)
                await media.send(start_event("a"))
                for number, packet in enumerate(spoken("echo")):
                    at = (220 + number) * 960
                    await media.send(media_event("a", number, packet, timestamp=str(at)))
                await media.send('{"event":"session-end"}')
                await media.closed()
    assert media.text("a") == "alpha bravo charlie delta echo"
    starts = [final["start_ms"] for final in media.finals("a")]
    assert starts == sorted(starts)
    assert all(not heard.violations for heard in service.connections)
    encodings = [heard.query.get("encoding", ["ogg"])[0] for heard in service.connections]
    assert encodings[:2] == ["opus", "linear16"]


async def test_a_client_that_comes_back_goes_on_with_its_container(shared: Server) -> None:
    data = ogg(spoken("golf hotel india"))
    half = data.index(b"OggS", len(data) // 2)
    query = "sendBack=true&encoding=ogg-opus&sessionId=returning"
    async with client(shared, query) as media:
        await send_pieces(media, "a", data[:half], 500)
        await media.send('{"event":"ping","id":1}')
        await media.until(lambda: media.of("pong"))
    async with client(shared, query) as media:
        await send_pieces(media, "a", data[half:], 500, timestamp=48_000)
        await media.send('{"event":"session-end"}')
        await media.closed()
    assert media.text("a").split()[-1] == "india"
    assert not media.of("error")
