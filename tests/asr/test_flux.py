"""What goes over the wire to Deepgram Flux, and what becomes of its turns."""

from __future__ import annotations

import asyncio
import json
import time
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.asr.deepgram import DeepgramSettings
from edge.asr.flux import FluxRecognizer, FluxSettings
from edge.asr.flux_stream import FRAME_BYTES, STARVED_S, FluxStream, TimeBase
from edge.asr.interface import AudioWanted, RecognizerStream, StreamRequest
from edge.errors import (
    RecognizerBusy,
    RecognizerClosed,
    RecognizerError,
    RecognizerRefused,
    SettingError,
)
from tests.asr.fakes.common import Fault
from tests.asr.fakes.deepgram_endpoint import KEY
from tests.asr.fakes.flux_endpoint import FakeFlux
from tests.asr.support.events import Events
from tests.asr.support.supervision import until
from tests.asr.support.tones import sentence, silence, tone

RATE_HZ = 16000
REQUEST = StreamRequest(track="tag-1", source="pcm")


def request(**members: Any) -> StreamRequest:
    return StreamRequest(track="tag-1", source="pcm", **members)


def recognizer(service: FakeFlux, **settings: Any) -> FluxRecognizer:
    deepgram = {"deepgram_api_key": KEY, "deepgram_url": service.url}
    own = {name: value for name, value in settings.items() if name.startswith("flux_")}
    deepgram |= {name: value for name, value in settings.items() if name not in own}
    return FluxRecognizer(FluxSettings(**own), DeepgramSettings(**deepgram))


def send(stream: RecognizerStream, pcm: bytes, batch_ms: int = 100) -> None:
    size = RATE_HZ * 2 * batch_ms // 1000
    for at in range(0, len(pcm), size):
        stream.send(pcm[at : at + size])


async def test_a_turn_becomes_interims_with_its_text_so_far_and_a_timed_final() -> None:
    async with FakeFlux() as service:
        events = Events()
        stream = await recognizer(service).open(REQUEST, events)
        assert not stream.turn_open
        send(stream, silence(500, RATE_HZ) + sentence("alpha bravo", RATE_HZ))
        await until(lambda: stream.turn_open)
        send(stream, silence(480, RATE_HZ))
        await until(lambda: events.finals)
        assert not stream.turn_open
        await stream.close()

    assert [interim.text for interim in events.interims] == ["alpha", "alpha bravo"]
    (final,) = events.finals
    assert (final.text, final.item_id) == ("alpha bravo", "tag-1-1")
    assert {interim.item_id for interim in events.interims} == {"tag-1-1"}
    assert (final.start_ms, final.end_ms) == pytest.approx((500, 1700))
    assert final.dealt_ms == pytest.approx(2000), "the silence that ended the turn is heard too"
    assert final.confidence == pytest.approx(0.8)
    assert final.language is None
    assert events.error is None


async def test_audio_goes_out_in_frames_of_80_ms_however_it_comes() -> None:
    said = sentence("golf", RATE_HZ, pause_ms=570)
    for batch_ms in (8, 20, 100, 1170):
        async with FakeFlux() as service:
            events = Events()
            stream = await recognizer(service).open(REQUEST, events)
            send(stream, said, batch_ms)
            await stream.drain()
            await stream.close()
            heard = service.connections[0]
        assert set(heard.sizes[:-1]) == {FRAME_BYTES}
        assert sum(heard.sizes) == len(said), "the rest is sent at the end"
        assert events.text == "golf"
        assert not heard.violations


async def test_every_setting_reaches_the_query() -> None:
    async with FakeFlux() as service:
        made = recognizer(
            service,
            flux_model="flux-general-multi",
            flux_eot_threshold=0.85,
            flux_eager_eot_threshold=0.4,
            flux_eot_timeout_ms=60000,
            flux_keyterms=("edge scribe", "opus"),
            flux_language_hints=("en", "es"),
            deepgram_tags=("a",),
            deepgram_mip_opt_out=True,
        )
        await (await made.open(request(labels=("b",)), Events())).close()
        await (await made.open(request(language="de"), Events())).close()
        await (await recognizer(service).open(request(language="en-GB"), Events())).close()
        full, german, plain = service.connections
    assert full.path == "/v2/listen"
    assert full.query == {
        "model": ["flux-general-multi"],
        "encoding": ["linear16"],
        "sample_rate": ["16000"],
        "eot_threshold": ["0.85"],
        "eager_eot_threshold": ["0.4"],
        "eot_timeout_ms": ["60000"],
        "keyterm": ["edge scribe", "opus"],
        "language_hint": ["en", "es"],
        "mip_opt_out": ["true"],
        "tag": ["a", "b"],
    }
    assert german.query["language_hint"] == ["de"]
    assert set(plain.query) == {"model", "encoding", "sample_rate"}
    assert plain.headers["authorization"] == f"Token {KEY}"
    assert made.wants == AudioWanted(encoding="pcm16", rate_hz=16000)


async def test_the_key_may_go_in_the_subprotocol() -> None:
    async with FakeFlux() as service:
        made = recognizer(service, deepgram_key_in_subprotocol=True)
        await (await made.open(REQUEST, Events())).close()
        assert service.connections[0].headers["sec-websocket-protocol"] == f"token, {KEY}"


async def test_a_language_the_model_does_not_know_is_refused_with_the_way_out() -> None:
    async with FakeFlux() as service:
        with pytest.raises(RecognizerRefused, match="FLUX_MODEL=flux-general-multi"):
            await recognizer(service).open(request(language="de"), Events())
        assert not service.connections


async def test_an_eager_end_and_a_turn_that_goes_on_are_one_turn() -> None:
    async with FakeFlux() as service:
        events = Events()
        stream = await recognizer(service, flux_eager_eot_threshold=0.5).open(REQUEST, events)
        send(stream, tone("alpha", RATE_HZ) + silence(200, RATE_HZ))
        send(stream, sentence("bravo", RATE_HZ, pause_ms=480))
        await until(lambda: events.finals)
        await stream.close()
    assert events.texts == ["alpha bravo"]
    assert [interim.text for interim in events.interims] == ["alpha", "alpha bravo"]


async def test_the_detected_language_is_told() -> None:
    async with FakeFlux() as service:
        events = Events()
        stream = await recognizer(service, flux_model="flux-general-multi").open(REQUEST, events)
        send(stream, sentence("echo", RATE_HZ, pause_ms=480))
        await until(lambda: events.finals)
        await stream.close()
    assert events.finals[0].language == "es"


async def test_without_times_of_words_those_of_the_turn_serve() -> None:
    async with FakeFlux(word_times=False) as service:
        events = Events()
        stream = await recognizer(service).open(REQUEST, events)
        send(stream, sentence("alpha", RATE_HZ, pause_ms=480))
        await until(lambda: events.finals)
        await stream.close()
    (final,) = events.finals
    assert (final.start_ms, final.end_ms) == pytest.approx((0, 900))
    assert final.dealt_ms == pytest.approx(900)


async def test_a_commit_ends_the_turn_and_is_said_only_if_there_was_audio() -> None:
    async with FakeFlux(end_silence_ms=60_000) as service:
        events = Events()
        stream = await recognizer(service).open(REQUEST, events)
        stream.commit()
        send(stream, tone("india", RATE_HZ, 630))
        await until(lambda: stream.turn_open)
        stream.commit()
        stream.commit()
        await until(lambda: events.finals)
        await stream.close()
        heard = service.connections[0]
    assert events.texts == ["india"]
    assert heard.texts == ["ForceEndTurn", "CloseStream"]
    assert sum(heard.sizes) == len(tone("india", RATE_HZ, 630)), "the unfinished frame goes first"


async def test_drain_makes_the_last_report_of_an_open_turn_its_final() -> None:
    async with FakeFlux() as service:
        events = Events()
        stream = await recognizer(service).open(REQUEST, events)
        send(stream, sentence("alpha bravo", RATE_HZ))
        await stream.drain()
        assert not events.ended, "only close ends a stream that was asked to drain"
        stream.send(tone("golf", RATE_HZ))
        stream.commit()
        await stream.close()
    assert events.texts == ["alpha bravo"]
    assert events.finals[0].dealt_ms == pytest.approx(1200)
    assert events.error is None


async def test_drain_without_an_open_turn_says_nothing() -> None:
    async with FakeFlux() as service:
        events = Events()
        stream = await recognizer(service).open(REQUEST, events)
        send(stream, silence(1000, RATE_HZ))
        await stream.drain()
        await stream.close()
    assert not events.finals
    assert events.error is None


async def test_a_connection_lost_while_a_turn_drains_is_an_error() -> None:
    """Its last report leaves out too much to be taken for the whole turn."""
    async with FakeFlux(faults=[Fault(after_ms=700, then="withhold")]) as service:
        events = Events()
        stream = await recognizer(service).open(REQUEST, events)
        send(stream, sentence("alpha bravo charlie delta", RATE_HZ))
        await stream.drain()
        await stream.close()
    assert not events.finals
    assert isinstance(events.error, RecognizerClosed)


async def test_a_turn_without_further_audio_gets_silence_so_that_it_ends() -> None:
    """The silence is left out of the times: they are those of the audio that was given."""
    async with FakeFlux() as service:
        made, events = recognizer(service), Events()
        stream = await made.open(REQUEST, events)
        send(stream, tone("alpha", RATE_HZ))
        await until(lambda: events.finals)
        sent = sum(service.connections[0].sizes)
        await asyncio.sleep(0.4)
        assert sum(service.connections[0].sizes) == sent, "no silence once the turn has ended"
        send(stream, sentence("bravo", RATE_HZ, pause_ms=480))
        await until(lambda: len(events.finals) == 2)
        await stream.close()
    first, second = events.finals
    assert events.texts == ["alpha", "bravo"]
    assert (first.start_ms, first.end_ms, first.dealt_ms) == pytest.approx((0, 600, 600))
    assert second.start_ms == pytest.approx(600, abs=21)
    assert second.end_ms == pytest.approx(1200, abs=21)
    assert made.counts.silence_ms >= 250


async def test_audio_that_waits_in_a_busy_worker_gets_no_silence_in_its_midst() -> None:
    """Neither while the worker stands still nor while kept audio is still to be played."""
    speech = sentence("alpha", RATE_HZ, pause_ms=480)
    cut = len(tone("alpha", RATE_HZ)) // 2
    behind = True
    async with FakeFlux() as service:
        made, events = recognizer(service), Events()
        stream = await made.open(request(is_behind=lambda: behind), events)
        send(stream, speech[:cut])
        await until(lambda: events.interims)
        await asyncio.sleep(2 * STARVED_S)
        behind = False
        time.sleep(2 * STARVED_S)
        for _ in range(3):
            await asyncio.sleep(0)
        assert made.counts.silence_ms == 0
        send(stream, speech[cut:])
        await until(lambda: events.finals)
        await stream.close()
    assert events.texts == ["alpha"]


async def test_a_turn_whose_end_was_never_told_is_a_final_when_the_next_begins() -> None:
    async with FakeFlux(unended=lambda turn: turn == 0) as service:
        made, events = recognizer(service), Events()
        stream = await made.open(REQUEST, events)
        send(stream, sentence("alpha", RATE_HZ, pause_ms=480))
        send(stream, sentence("bravo", RATE_HZ, pause_ms=480))
        await until(lambda: len(events.finals) == 2)
        await stream.close()
    assert events.texts == ["alpha", "bravo"]
    assert made.counts.turns_unended == 1


async def test_messages_that_never_came_are_counted_by_their_numbers() -> None:
    async with FakeFlux(skips=lambda number: number in (2, 3)) as service:
        made, events = recognizer(service), Events()
        stream = await made.open(REQUEST, events)
        send(stream, sentence("alpha", RATE_HZ, pause_ms=480))
        await until(lambda: events.finals)
        await stream.close()
    assert made.counts.messages_missed == 2
    assert events.texts == ["alpha"]


async def test_a_service_that_falls_silent_in_a_turn_owes_something_and_says_so() -> None:
    async with FakeFlux(faults=[Fault(after_ms=700, then="mute")]) as service:
        stream = await recognizer(service).open(REQUEST, Events())
        send(stream, tone("alpha", RATE_HZ, 1000))
        await until(lambda: stream.turn_open)
        await until(lambda: sum(service.connections[0].sizes) > 1200 * 32)
        heard_s = stream.heard_s
        await asyncio.sleep(0.1)
        assert stream.turn_open
        assert stream.heard_s == heard_s
        assert stream.silent_limit_s == 3.0
        await stream.close()


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        (Fault(status=HTTPStatus.UNAUTHORIZED), RecognizerRefused, "DEEPGRAM_API_KEY"),
        (Fault(status=HTTPStatus.TOO_MANY_REQUESTS), RecognizerBusy, "429"),
    ],
)
async def test_a_refused_handshake_says_what_to_do(
    fault: Fault, kind: type[RecognizerError], says: str
) -> None:
    async with FakeFlux(faults=[fault]) as service:
        with pytest.raises(kind, match=says):
            await recognizer(service).open(REQUEST, Events())


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        (Fault(after_ms=700, then="drop"), RecognizerClosed, "lost"),
        (Fault(after_ms=700, then="close", code=1011), RecognizerClosed, "1011"),
        (Fault(after_ms=700, then="close", code=None), RecognizerClosed, "1005"),
        (Fault(after_ms=700, then="error"), RecognizerClosed, "INTERNAL_SERVER_ERROR: on demand"),
        (
            Fault(after_ms=0, then="error", error={"code": "INSUFFICIENT_PERMISSIONS"}),
            RecognizerRefused,
            "INSUFFICIENT_PERMISSIONS",
        ),
        (
            Fault(after_ms=700, then="error", error={"code": "QUOTA_EXCEEDED"}),
            RecognizerRefused,
            "QUOTA",
        ),
    ],
)
async def test_a_connection_that_ends_in_a_turn_tells_why_and_no_final(
    fault: Fault, kind: type[RecognizerError], says: str
) -> None:
    """The turn will be heard again, whole, by the next connection."""
    async with FakeFlux(faults=[fault]) as service:
        events = Events()
        stream = await recognizer(service).open(REQUEST, events)
        send(stream, sentence("alpha bravo", RATE_HZ))
        await until(lambda: events.ended)
        await stream.close()
    assert isinstance(events.error, kind)
    assert says in str(events.error)
    assert not events.finals


async def test_messages_that_mean_nothing_or_make_no_sense_are_passed_over() -> None:
    strange = (
        ("not json", 1),
        ('{"type":"TurnInfo","sequence_id":0}', 1),
        ('{"type":"Warning","sequence_id":0,"code":"SLOW"}', 0),
        (json.dumps({"type": "Novelty", "sequence_id": 0}), 0),
    )
    for message, malformed in strange:
        async with FakeFlux(faults=[Fault(strange=message)]) as service:
            made, events = recognizer(service), Events()
            stream = await made.open(REQUEST, events)
            send(stream, sentence("alpha", RATE_HZ, pause_ms=480))
            await until(lambda: events.finals)  # noqa: B023
            await stream.close()
        assert events.texts == ["alpha"]
        assert made.counts.messages_malformed == malformed


async def test_a_stream_that_is_closed_sends_and_says_nothing_more() -> None:
    async with FakeFlux() as service:
        events = Events()
        stream = await recognizer(service).open(REQUEST, events)
        assert isinstance(stream, FluxStream)
        await stream.close()
        send(stream, tone("alpha", RATE_HZ))
        stream.commit()
        await stream.drain()
        await stream.close()
    assert events.error is None
    assert len(events.all) == 1


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (FluxSettings(flux_eager_eot_threshold=0.8), "EAGER"),
        (FluxSettings(flux_eager_eot_threshold=0.6, flux_eot_threshold=0.5), "EAGER"),
        (FluxSettings(flux_language_hints=("en",)), "HINTS"),
    ],
)
def test_settings_that_contradict_each_other_stop_the_start(
    settings: FluxSettings, name: str
) -> None:
    with pytest.raises(SettingError, match=name):
        FluxRecognizer(settings, DeepgramSettings(deepgram_api_key=KEY))


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 500)), max_size=30))
def test_every_moment_of_given_audio_has_its_place_on_the_services_clock(
    pieces: list[tuple[bool, int]],
) -> None:
    base = TimeBase()
    given_ms = 0
    for made_up, duration_ms in pieces:
        if made_up:
            assert base.audio_ms(base.sent_ms) == given_ms
            base.silence(duration_ms)
            assert base.audio_ms(base.sent_ms - duration_ms / 2) == given_ms
        else:
            base.audio(duration_ms)
            given_ms += duration_ms
            assert base.audio_ms(base.sent_ms - duration_ms / 2) == given_ms - duration_ms / 2
        assert base.audio_ms(base.sent_ms) == given_ms
    assert base.audio_ms(0) == 0
