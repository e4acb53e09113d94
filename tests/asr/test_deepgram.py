"""What goes over the wire to Deepgram, and what becomes of its answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import pytest

from _native.ogg import Muxer
from edge.asr import deepgram_stream
from edge.asr.deepgram import DeepgramRecognizer, DeepgramSettings, missing
from edge.asr.deepgram_stream import DeepgramStream, OggClock
from edge.asr.interface import AudioWanted, RecognizerStream, Source, StreamRequest
from edge.errors import (
    RecognizerBusy,
    RecognizerClosed,
    RecognizerError,
    RecognizerRefused,
    SettingError,
)
from tests.asr.fakes.common import Fault
from tests.asr.fakes.deepgram_endpoint import KEY, FakeDeepgram
from tests.asr.support.events import Events
from tests.asr.support.supervision import until
from tests.asr.support.tones import packets, sentence, silence, tone

PCM_HZ = 24000


def recognizer(service: FakeDeepgram, **settings: Any) -> DeepgramRecognizer:
    given = {"deepgram_api_key": KEY, "deepgram_url": service.url, **settings}
    return DeepgramRecognizer(DeepgramSettings(**given))


def request(source: Source = "pcm", **members: Any) -> StreamRequest:
    return StreamRequest(track="tag-1", source=source, **members)


def send_pcm(stream: RecognizerStream, pcm: bytes) -> None:
    size = PCM_HZ * 2 // 10
    for at in range(0, len(pcm), size):
        stream.send(pcm[at : at + size])


def send_opus(stream: RecognizerStream, pcm: bytes) -> None:
    """PCM at 48 kHz as packets, five at a time."""
    made = packets(pcm)
    for at in range(0, len(made), 5):
        stream.send_packets(made[at : at + 5])


async def test_packets_go_on_as_they_came_and_words_come_back_with_their_times() -> None:
    said = silence(500, 48000) + sentence("alpha bravo", 48000) + silence(600, 48000)
    async with FakeDeepgram() as service:
        events = Events()
        stream = await recognizer(service).open(request("opus"), events)
        send_opus(stream, said)
        await until(lambda: events.text)
        await stream.close()
        heard = service.connections[0]

    final = next(final for final in events.finals if final.text)
    assert final.text == "alpha bravo"
    assert final.start_ms == pytest.approx(500, abs=40)
    assert final.end_ms == pytest.approx(1700, abs=40)
    assert final.dealt_ms is not None
    assert 1700 < final.dealt_ms <= 2300, "the silence that ended it is dealt with too"
    assert final.confidence == 0.9
    assert {one.item_id for one in events.interims} == {final.item_id} == {"tag-1-1"}
    assert events.interims[-1].text == "alpha"
    assert heard.query["encoding"] == ["opus"]
    assert heard.query["sample_rate"] == ["48000"]
    assert heard.sizes == [len(packet) for packet in packets(said)], "one message each"
    assert not heard.violations
    assert events.error is None


async def test_ogg_goes_on_in_its_container_without_a_declared_form() -> None:
    made, muxer = packets(sentence("delta echo", 48000) + silence(400, 48000)), Muxer(5)
    async with FakeDeepgram() as service:
        events = Events()
        stream = await recognizer(service).open(request("ogg"), events)
        stream.send(muxer.headers())
        for at in range(0, len(made), 5):
            stream.send(muxer.pages(made[at : at + 5]))
        await stream.drain()
        await stream.close()
        heard = service.connections[0]
    assert events.text == "delta echo"
    assert not {"encoding", "sample_rate"} & set(heard.query)
    assert not heard.violations


@pytest.mark.parametrize(
    ("source", "encoding", "wanted"),
    [
        ("opus", "opus", AudioWanted(encoding="opus", rate_hz=48000)),
        ("ogg", "opus", AudioWanted(encoding="ogg", rate_hz=48000)),
        ("pcm", "opus", AudioWanted(encoding="pcm16", rate_hz=24000)),
        ("opus", "linear16", AudioWanted(encoding="pcm16", rate_hz=24000)),
        ("ogg", "linear16", AudioWanted(encoding="pcm16", rate_hz=24000)),
    ],
)
async def test_what_is_wanted_follows_what_comes_in(
    source: Source, encoding: str, wanted: AudioWanted
) -> None:
    async with FakeDeepgram() as service:
        made = recognizer(service, deepgram_encoding=encoding)
        assert made.wants_for(source) == wanted
        assert made.wants == AudioWanted(encoding="pcm16", rate_hz=24000)


async def test_every_setting_reaches_the_query() -> None:
    async with FakeDeepgram() as service:
        made = recognizer(
            service,
            deepgram_model="nova-3-general",
            deepgram_language="en",
            deepgram_punctuate=True,
            deepgram_diarize=True,
            deepgram_mip_opt_out=True,
            deepgram_tags=("team a", "x"),
        )
        stream = await made.open(request(labels=("y",)), Events())
        await stream.close()
        heard = service.connections[0]
    assert heard.path == "/v1/listen"
    assert heard.query == {
        "channels": ["1"],
        "interim_results": ["true"],
        "model": ["nova-3-general"],
        "language": ["en"],
        "punctuate": ["true"],
        "diarize": ["true"],
        "encoding": ["linear16"],
        "sample_rate": ["24000"],
        "mip_opt_out": ["true"],
        "tag": ["team a", "x", "y"],
    }
    assert heard.headers["authorization"] == f"Token {KEY}"
    assert "sec-websocket-protocol" not in heard.headers


@pytest.mark.parametrize(
    ("setting", "asked", "sent"),
    [(True, None, True), (True, False, False), (False, True, True), (False, None, False)],
)
async def test_a_client_decides_over_the_training_opt_out(
    setting: bool, asked: bool | None, sent: bool
) -> None:
    async with FakeDeepgram() as service:
        made = recognizer(service, deepgram_mip_opt_out=setting)
        await (await made.open(request(mip_opt_out=asked), Events())).close()
        assert service.connections[0].query.get("mip_opt_out") == (["true"] if sent else None)


async def test_several_languages_are_the_default_with_the_advised_endpointing() -> None:
    async with FakeDeepgram() as service:
        made = recognizer(service)
        await (await made.open(request(), Events())).close()
        await (await made.open(request(language="pt-BR"), Events())).close()
        first, second = service.connections
    assert (first.query["language"], first.query["endpointing"]) == (["multi"], ["100"])
    assert second.query["language"] == ["pt-BR"]
    assert "endpointing" not in second.query
    assert first.query["punctuate"] == first.query["diarize"] == ["false"]


async def test_the_key_may_go_in_the_subprotocol() -> None:
    async with FakeDeepgram() as service:
        made = recognizer(service, deepgram_key_in_subprotocol=True)
        await (await made.open(request(), Events())).close()
        heard = service.connections[0]
    assert heard.headers["sec-websocket-protocol"] == f"token, {KEY}"
    assert "authorization" not in heard.headers


async def test_each_speakers_run_is_a_message_with_its_mean_confidence() -> None:
    """Speakers of the fake: alpha 0, bravo 1, charlie 0, delta 1."""
    async with FakeDeepgram() as service:
        events = Events()
        made = recognizer(service, deepgram_diarize=True, deepgram_punctuate=True)
        stream = await made.open(request(), events)
        send_pcm(stream, sentence("alpha charlie bravo", PCM_HZ) + silence(400, PCM_HZ))
        await until(lambda: events.text)
        send_pcm(stream, sentence("delta", PCM_HZ))
        await stream.drain()
        await stream.close()
    finals = [final for final in events.finals if final.text]
    assert [(final.text, final.speaker) for final in finals] == [
        ("Alpha charlie", 0), ("bravo.", 1), ("Delta.", 1),
    ]  # fmt: skip
    assert [final.confidence for final in finals] == pytest.approx([0.8, 0.8, 0.8])
    assert len({final.item_id for final in finals}) == 3
    assert [round(final.start_ms) for final in finals[:2]] == [0, 1200]
    assert finals[0].dealt_ms == pytest.approx(1200)
    assert (finals[1].dealt_ms or 0) > 1800
    assert [(one.text, one.speaker) for one in events.interims] == [("Alpha charlie.", 0)]


async def test_the_detected_language_is_told_and_put_behind_the_text_by_setting() -> None:
    async with FakeDeepgram(language="es") as service:
        for include, text in ((False, "golf"), (True, "golf [es]")):
            events = Events()
            made = recognizer(service, deepgram_include_language=include)
            stream = await made.open(request(), events)
            send_pcm(stream, sentence("golf", PCM_HZ, pause_ms=300))
            await stream.drain()
            await stream.close()
            final = next(final for final in events.finals if final.text)
            assert (final.text, final.language) == (text, "es")


async def test_a_commit_gets_the_final_of_what_was_said_and_only_if_there_is_something() -> None:
    async with FakeDeepgram() as service:
        events = Events()
        stream = await recognizer(service).open(request(), events)
        stream.commit()
        send_pcm(stream, tone("india", PCM_HZ, 800))
        stream.commit()
        stream.commit()
        await until(lambda: events.finals)
        await stream.close()
        heard = service.connections[0]
    assert events.text == "india"
    assert heard.texts == ["Finalize", "CloseStream"]


async def test_drain_gives_the_last_words_and_the_names_of_messages_go_on() -> None:
    async with FakeDeepgram(faults=lambda number: Fault(delay_s=0.1)) as service:
        made = recognizer(service)
        names = []
        for word in ("hotel", "alpha"):
            events = Events()
            stream = await made.open(request(), events)
            send_pcm(stream, tone(word, PCM_HZ))
            await stream.drain()
            assert not events.ended, "only close ends a stream that was asked to drain"
            assert events.text == word
            stream.send(tone("bravo", PCM_HZ))
            stream.commit()
            await stream.close()
            names += [final.item_id for final in events.finals]
            assert events.error is None
        await until(lambda: not service.open_connections)
        assert [one.texts for one in service.connections] == [["CloseStream"]] * 2
    assert len(set(names)) == len(names), "no name is given twice on one track"


async def test_silence_is_answered_by_how_far_it_is_dealt_with() -> None:
    async with FakeDeepgram() as service:
        events = Events()
        stream = await recognizer(service).open(request(), events)
        send_pcm(stream, silence(9000, PCM_HZ))
        await until(lambda: len(events.finals) >= 2)
        await stream.close()
    assert not events.interims
    assert [final.text for final in events.finals[:2]] == ["", ""]
    assert [final.end_ms for final in events.finals[:2]] == [4000, 8000]


async def test_without_audio_the_connection_is_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepgram_stream, "KEEP_ALIVE_S", 0.2)
    async with FakeDeepgram(timeout_s=1.0) as service:
        events = Events()
        stream = await recognizer(service).open(request(), events)
        heard = service.connections[0]
        await until(lambda: heard.texts.count("KeepAlive") >= 6)
        assert not events.ended
        before = heard.texts.count("KeepAlive")
        for _ in range(50):
            stream.send(silence(20, PCM_HZ))
            await asyncio.sleep(0.03)
        kept = heard.texts.count("KeepAlive") - before
        send_pcm(stream, tone("echo", PCM_HZ))
        await stream.drain()
        await stream.close()
    assert kept <= 3, "none is needed while audio flows"
    assert events.text == "echo"


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        (Fault(status=HTTPStatus.UNAUTHORIZED), RecognizerRefused, "DEEPGRAM_API_KEY"),
        (Fault(status=HTTPStatus.PAYMENT_REQUIRED), RecognizerRefused, "credit"),
        (Fault(status=HTTPStatus.NOT_FOUND), RecognizerRefused, "DEEPGRAM_URL"),
        (Fault(status=HTTPStatus.BAD_REQUEST), RecognizerRefused, "model"),
        (Fault(status=HTTPStatus.SERVICE_UNAVAILABLE), RecognizerBusy, "503"),
    ],
)
async def test_a_refused_handshake_says_what_to_do(
    fault: Fault, kind: type[RecognizerError], says: str
) -> None:
    async with FakeDeepgram(faults=[fault]) as service:
        with pytest.raises(kind, match=says) as refused:
            await recognizer(service).open(request(), Events())
    assert KEY not in str(refused.value)


async def test_over_quota_says_when_to_come_back() -> None:
    fault = Fault(status=HTTPStatus.TOO_MANY_REQUESTS, headers={"Retry-After": "7"})
    async with FakeDeepgram(faults=[fault]) as service:
        with pytest.raises(RecognizerBusy) as busy:
            await recognizer(service).open(request(), Events())
    assert busy.value.retry_after_s == 7


async def test_a_slow_handshake_is_waited_for_and_may_be_given_up() -> None:
    async with FakeDeepgram(faults=[Fault(handshake_delay_s=0.2), Fault(hang=True)]) as service:
        stream = await recognizer(service).open(request(), Events())
        await stream.close()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await recognizer(service).open(request(), Events())


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        (Fault(after_ms=300, then="drop"), RecognizerClosed, "lost"),
        (Fault(after_ms=300, then="close", code=1011), RecognizerClosed, "1011"),
        (Fault(after_ms=300, then="close", code=None), RecognizerClosed, "1005"),
        (Fault(after_ms=300, then="close", code=1000), RecognizerClosed, "1000"),
        (Fault(after_ms=0, then="close", code=1008), RecognizerRefused, "1008"),
        (Fault(after_ms=1500, then="close", code=1008), RecognizerClosed, "1008"),
        (Fault(after_ms=300, then="error"), RecognizerClosed, "INTERNAL: on demand"),
        (
            Fault(after_ms=300, then="error", error={"variant": "INVALID_AUTH"}),
            RecognizerRefused,
            "INVALID_AUTH",
        ),
        (
            Fault(after_ms=300, then="error", error={"description": "Too many requests"}),
            RecognizerBusy,
            "Too many",
        ),
    ],
)
async def test_a_connection_that_ends_tells_why(
    fault: Fault, kind: type[RecognizerError], says: str
) -> None:
    async with FakeDeepgram(faults=[fault]) as service:
        events = Events()
        stream = await recognizer(service).open(request(), events)
        send_pcm(stream, sentence("alpha bravo charlie", PCM_HZ))
        await until(lambda: events.ended)
        await stream.close()
    assert isinstance(events.error, kind)
    assert says in str(events.error)
    assert KEY not in str(events.error)


async def test_a_connection_lost_while_it_drains_is_an_error() -> None:
    """Otherwise the words that were not transcribed would be taken as dealt with."""
    async with FakeDeepgram(faults=[Fault(after_ms=500, then="withhold")]) as service:
        events = Events()
        stream = await recognizer(service).open(request(), events)
        send_pcm(stream, sentence("alpha bravo charlie delta", PCM_HZ))
        await asyncio.wait_for(stream.drain(), 5)
        await stream.close()
    assert not events.text
    assert isinstance(events.error, RecognizerClosed)


async def test_words_without_a_final_are_not_dealt_with_by_a_normal_end() -> None:
    async with FakeDeepgram(faults=[Fault(after_ms=1100, then="withhold")]) as service:
        events = Events()
        stream = await recognizer(service).open(request(), events)
        send_pcm(stream, tone("alpha", PCM_HZ, 1500))
        await until(lambda: events.interims)
        await asyncio.wait_for(stream.drain(), 5)
        await stream.close()
    assert not events.text
    assert isinstance(events.error, RecognizerClosed)


async def test_a_service_that_falls_silent_owes_something_and_says_so() -> None:
    async with FakeDeepgram(faults=[Fault(after_ms=1100, then="mute")]) as service:
        stream = await recognizer(service).open(request(), Events())
        assert not stream.turn_open
        send_pcm(stream, tone("alpha", PCM_HZ, 1000))
        await until(lambda: stream.turn_open)
        heard_s = stream.heard_s
        send_pcm(stream, tone("bravo", PCM_HZ, 4000))
        await until(lambda: service.connections[0].audio_ms >= 5000)
        assert stream.turn_open
        assert stream.heard_s == heard_s
        assert stream.silent_limit_s == 8.0
        await stream.close()


async def test_a_service_that_reads_nothing_makes_a_backlog_and_then_an_end() -> None:
    async with FakeDeepgram(faults=[Fault(after_ms=0, then="deaf")]) as service:
        events = Events()
        stream = await recognizer(service).open(request("opus"), events)
        packet = packets(tone("alpha", 48000, 20))[0] + bytes(1000)
        for _ in range(2000):
            stream.send_packets([packet] * 5)
            if events.ended:
                break
        assert isinstance(events.error, RecognizerBusy)
        assert stream.backlog_ms == 0, "what waited is given up"
        await stream.close()


async def test_what_waited_is_sent_in_order_when_the_service_reads_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with FakeDeepgram() as service:
        events = Events()
        stream = await recognizer(service).open(request(), events)
        assert isinstance(stream, DeepgramStream)
        connection = stream._connection
        connection.pause_writing()
        send_pcm(stream, sentence("alpha bravo", PCM_HZ))
        stream.commit()
        assert stream.backlog_ms == pytest.approx(1200)
        assert not service.connections[0].sizes
        connection.resume_writing()
        assert stream.backlog_ms == 0
        await until(lambda: events.text == "alpha bravo")
        await stream.close()


async def test_messages_that_mean_nothing_or_make_no_sense_are_passed_over() -> None:
    for strange, malformed in (
        (b'{"type":"SpeechStarted","timestamp":1.0}', 0),
        ("not json", 1),
        ('{"type":"Results","start":"soon"}', 1),
        ('{"type":"Metadata"}', 0),
    ):
        async with FakeDeepgram(faults=[Fault(strange=strange)]) as service:
            made, events = recognizer(service), Events()
            stream = await made.open(request(), events)
            opened_s = stream.heard_s
            await until(lambda: stream.heard_s > opened_s)  # noqa: B023
            send_pcm(stream, tone("foxtrot", PCM_HZ))
            await stream.drain()
            await stream.close()
        assert events.text == "foxtrot"
        assert made.counts.messages_malformed == malformed


async def test_closing_without_draining_waits_for_nothing() -> None:
    async with FakeDeepgram(faults=[Fault(delay_s=5)]) as service:
        events = Events()
        stream = await recognizer(service).open(request(), events)
        send_pcm(stream, tone("alpha", PCM_HZ))
        await asyncio.wait_for(stream.close(), 2)
        assert events.error is None
        await stream.close()


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"deepgram_url": "https://api.deepgram.com"}, "DEEPGRAM_URL"),
        ({"deepgram_url": "wss://api.deepgram.com?x=1"}, "DEEPGRAM_URL"),
        ({"deepgram_tags": ("x" * 129,)}, "DEEPGRAM_TAGS"),
        ({"deepgram_tags": ("",)}, "DEEPGRAM_TAGS"),
    ],
)
def test_a_setting_that_cannot_be_used_stops_the_start(settings: Any, name: str) -> None:
    with pytest.raises(SettingError, match=name):
        DeepgramRecognizer(DeepgramSettings(deepgram_api_key=KEY, **settings))


def test_without_a_key_it_says_what_is_missing() -> None:
    assert missing(DeepgramSettings()) == "set DEEPGRAM_API_KEY"
    assert missing(DeepgramSettings(deepgram_api_key=KEY)) is None


def test_the_clock_of_ogg_pages_counts_their_packets() -> None:
    muxer, clock = Muxer(3, pre_skip=312), OggClock()
    made = packets(silence(600, 48000))
    assert clock.advance_ms(muxer.headers()) == 0
    assert clock.advance_ms(muxer.pages(made[:10])) == pytest.approx(200)
    both = muxer.pages(made[10:15]) + muxer.pages(made[15:])
    assert clock.advance_ms(both) == pytest.approx(300 + 20 * (len(made) - 25))
    assert clock.advance_ms(b"") == 0


async def test_any_result_of_the_service_is_survived() -> None:
    """Members that are null, missing, or out of the ordinary."""
    odd: tuple[Callable[[], dict[str, Any]], ...] = (
        lambda: {"channel": {"alternatives": []}},
        lambda: {"channel": {"alternatives": [{"transcript": "x"}]}, "is_final": True},
        lambda: {
            "channel": {
                "alternatives": [
                    {
                        "transcript": "x y",
                        "confidence": None,
                        "languages": None,
                        "words": [
                            {"word": "x", "start": 0, "end": 1},
                            {"word": "y", "start": 1, "end": 2, "speaker": 3},
                        ],
                    }
                ]
            },
            "is_final": True,
        },
    )
    for members in odd:
        strange = json.dumps({"type": "Results", "start": 0, "duration": 2.5, **members()})
        async with FakeDeepgram(faults=[Fault(strange=strange)]) as service:
            made, events = recognizer(service), Events()
            stream = await made.open(request(), events)
            await stream.drain()
            await stream.close()
        assert made.counts.messages_malformed == 0
        assert all(final.speaker in (None, 3) for final in events.finals)
