"""Deepgram and Flux behind a track and its supervisor: real Opus packets in, every word once."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from edge.asr.deepgram import DeepgramRecognizer, DeepgramSettings
from edge.asr.deepgram_stream import DeepgramStream
from edge.asr.flux import FluxRecognizer, FluxSettings
from edge.asr.flux_stream import FluxStream
from tests.asr.fakes.common import Fault
from tests.asr.fakes.deepgram_endpoint import KEY, FakeDeepgram
from tests.asr.fakes.flux_endpoint import FakeFlux
from tests.asr.support.supervision import Scene, scene, until

TALK = ("alpha bravo charlie", "delta echo", "foxtrot golf hotel", "india alpha")
WORDS = " ".join(TALK)
FAULTS = {
    "drop": Fault(after_ms=2700, then="drop"),
    "drop in a pause": Fault(after_ms=2100, then="drop"),
    "close without a code": Fault(after_ms=1500, then="close", code=None),
    "1011": Fault(after_ms=4100, then="close", code=1011),
    "error": Fault(after_ms=900, then="error"),
    "stall": Fault(after_ms=3300, then="mute"),
    "429": Fault(status=HTTPStatus.TOO_MANY_REQUESTS),
    "503": Fault(status=HTTPStatus.SERVICE_UNAVAILABLE),
    "slow handshake": Fault(handshake_delay_s=0.3),
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that stops to answer is given up within a test's time."""
    monkeypatch.setattr(DeepgramStream, "silent_limit_s", 1.0)
    monkeypatch.setattr(FluxStream, "silent_limit_s", 1.0)


def deepgram(service: FakeDeepgram, encoding: str = "opus") -> DeepgramRecognizer:
    settings = {"deepgram_encoding": encoding, "deepgram_language": "en"}
    return DeepgramRecognizer(
        DeepgramSettings(deepgram_api_key=KEY, deepgram_url=service.url, **settings)  # type: ignore[arg-type]
    )


def flux(service: FakeFlux) -> FluxRecognizer:
    access = DeepgramSettings(deepgram_api_key=KEY, deepgram_url=service.url)
    return FluxRecognizer(FluxSettings(), access)


async def talk(talking: Scene) -> None:
    """Say it all and wait for the last final."""
    for words in TALK:
        await talking.speaker.say(words)
    await talking.supervisor.finish(8)


def text(talking: Scene) -> str:
    """What was heard; results may be cut anywhere between words."""
    assert not talking.listener.errors
    return talking.listener.text


async def test_words_survive_the_way_of_undecoded_packets() -> None:
    async with FakeDeepgram() as service, scene(deepgram(service)) as talking:
        await talk(talking)
        assert text(talking) == WORDS
        for heard in service.connections:
            assert heard.query["encoding"] == ["opus"]
            assert not heard.violations
        assert sum(heard.audio_ms for heard in service.connections) >= 8000
        ids = [final.item_id for final in talking.listener.finals]
    assert len(set(ids)) == len(ids)
    assert all(one.item_id in ids for one in talking.listener.interims)
    starts = [final.start_ms for final in talking.listener.finals]
    assert starts == sorted(starts)
    assert starts[0] == pytest.approx(0, abs=40)


@pytest.mark.parametrize("encoding", ["opus", "linear16"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_every_word_comes_once_whatever_happens_to_deepgram(
    fault: Fault, encoding: str
) -> None:
    async with FakeDeepgram(faults=[fault]) as service:
        async with scene(deepgram(service, encoding)) as talking:
            await talk(talking)
            assert text(talking) == WORDS
        assert len(service.connections) == (1 if fault.handshake_delay_s else 2)
        assert not any(heard.violations for heard in service.connections)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_every_word_comes_once_whatever_happens_to_flux(fault: Fault) -> None:
    async with FakeFlux(faults=[fault]) as service:
        async with scene(flux(service)) as talking:
            await talk(talking)
            assert text(talking) == WORDS
        assert len(service.connections) == (1 if fault.handshake_delay_s else 2)
        assert not any(heard.violations for heard in service.connections)


async def test_a_lost_packet_goes_on_as_an_empty_frame_and_the_words_stay_in_time() -> None:
    async with FakeDeepgram() as service, scene(deepgram(service)) as talking:
        await talking.speaker.say("alpha")
        talking.speaker._chunk += 2
        await talking.speaker.say("bravo charlie")
        await talking.supervisor.finish(5)
        assert text(talking) == "alpha bravo charlie"
        heard = service.connections[0]
        assert heard.audio_ms == pytest.approx(talking.track.end_ms, abs=3)
        assert not heard.violations
    assert talking.listener.finals[1].start_ms == pytest.approx(1240, abs=45)


async def test_deepgram_refused_hands_over_to_flux() -> None:
    refused = Fault(status=HTTPStatus.UNAUTHORIZED)
    async with FakeDeepgram(faults=[refused]) as first, FakeFlux() as second:
        async with scene(deepgram(first), flux(second)) as talking:
            await talk(talking)
            assert text(talking) == WORDS
        assert {final.provider for final in talking.listener.finals} == {"flux"}
        assert len(first.connections) == 1


async def test_nothing_is_left_open() -> None:
    async with FakeDeepgram() as service:
        async with scene(deepgram(service)) as talking:
            await talking.speaker.say("alpha")
            await until(lambda: talking.listener.finals)
        await until(lambda: not service.open_connections)
        assert talking.counts.open == 0
