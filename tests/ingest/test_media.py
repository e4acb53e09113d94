"""/transcribe through a running gateway: what media servers get back, and what stays apart."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from http import HTTPStatus

import pytest
import pytest_asyncio

from _native.ogg import Muxer
from edge.asr.registry import ENTRIES
from tests.asr.fakes.openai_endpoint import FakeOpenAI, Fault
from tests.asr.support.tones import packets, sentence, silence
from tests.ingest.support.media import (
    client,
    gateway,
    l16_packets,
    media_event,
    start_event,
)
from tests.support.server import Server, wait_until


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Server]:
    settings = {"ENABLE_DUMMY_PROVIDER": "true", "SESSION_RESUME_GRACE_PERIOD": "0.5"}
    async with gateway(FakeOpenAI(), **settings) as (server, _):
        yield server


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_two_speakers_get_their_own_words_back_on_the_socket_they_spoke_on(
    shared: Server,
) -> None:
    async with client(shared, "sendBack=true&sessionId=standup") as media:
        await media.send(start_event("abcdef01-305123557"))
        await asyncio.gather(
            media.say("abcdef01-305123557", "alpha bravo"), media.say("guest", "golf hotel")
        )
        await media.until(lambda: len(media.finals()) == 2)
        assert media.text("abcdef01-305123557") == "alpha bravo"
        assert media.text("guest") == "golf hotel"
        result = media.finals("abcdef01-305123557")[0]
        assert result["participant"] == {"id": "abcdef01", "tag": "abcdef01-305123557"}
        assert media.finals("guest")[0]["participant"] == {"id": "guest", "tag": "guest"}
        assert result["type"] == result["event"] == "transcription-result"
        assert 0 < result["transcript"][0]["confidence"] <= 1
        assert result["timestamp"] > 1_700_000_000_000
        assert "start_ms" not in result


@pytest.mark.parametrize(
    ("query", "finals", "interims"),
    [
        ("sendBack=true", True, False),
        ("sendBack=true&sendBackInterim=true", True, True),
        ("sendBackInterim=true", False, True),
        ("useDispatcher=true", False, False),
    ],
)
async def test_a_client_gets_the_kinds_of_results_it_asked_for(
    shared: Server, query: str, finals: bool, interims: bool
) -> None:
    async with client(shared, query) as media:
        await media.say("a", "alpha")
        await media.send('{"event":"session-end"}')
        assert await media.closed() == (1000, "Session ended")
        assert (bool(media.finals()), bool(media.interims())) == (finals, interims)


async def test_times_are_on_the_session_clock_the_tags_share(shared: Server) -> None:
    async with client(shared, "sendBack=true&times=true") as media:
        for number, packet in enumerate(packets(sentence("delta", 48000, pause_ms=600))):
            await media.send(media_event("a", number, packet, timestamp=480_000 + number * 960))
        await media.until(media.finals)
        result = media.finals()[0]
        assert 9_900 <= result["start_ms"] <= 10_100
        assert 10_500 <= result["end_ms"] <= 11_300


async def test_the_gateway_introduces_itself_once_unless_told_not_to(shared: Server) -> None:
    async with client(shared, "sendBack=true&sessionId=m1") as media:
        await media.until(lambda: media.of("info"))
        info = media.of("info")[0]
        assert (info["application"], info["provider"]) == ("edgescribe", "openai")
        assert info["sessionId"] == "m1"
        assert info["providersAvailable"][0] == "openai"
        assert "dummy" in info["providersAvailable"]
        assert info["config"]["providersPriority"] == ["openai"]
        assert info["config"]["forceCommitTimeout"] == 2
    async with client(shared, "sendBack=true&info=false") as media:
        await media.send('{"event":"ping"}')
        await media.until(lambda: media.messages)
        assert media.messages == [{"event": "pong"}]


@pytest.mark.parametrize(
    ("ping", "pong"),
    [
        ('{"event":"ping","id":7,"event":"ping"}', {"event": "pong", "id": 7}),
        ('{"event":"ping","id":"7"}', {"event": "pong"}),
    ],
)
async def test_a_ping_is_answered_with_its_id_if_that_is_a_number(
    shared: Server, ping: str, pong: dict[str, object]
) -> None:
    async with client(shared, "sendBack=true&info=false") as media:
        await media.send(ping)
        await media.until(lambda: media.messages)
        assert media.messages == [pong]


async def test_binary_frames_may_hold_events(shared: Server) -> None:
    async with client(shared) as media:
        await media.send(b'{"event":"ping","id":1}')
        await media.until(lambda: media.of("pong"))


async def test_bad_input_costs_itself_and_nothing_else(shared: Server) -> None:
    async with client(shared, "sendBack=true&info=false") as media:
        for message in (
            "not json", "[]", "{}", '{"event":"media"}', '{"event":"media","event":"ping"}',
            '{"event":"media","media":{"tag":"a","chunk":1,"timestamp":2,"payload":"!!!!"}}',
            '{"event":"media","media":{"tag":"a","chunk":1,"timestamp":2,"payload":""}}',
            '{"event":"media","media":{"tag":"a","chunk":1,"timestamp":2}}',
            '{"event":"unheard-of"}', b"\xff\xfe", "[" * 60_000,
            b'{"event":"media","media":{"tag":"\xff","payload":"AAEC"}}',
        ):  # fmt: skip
            await media.send(message)
        await media.say("a", "echo")
        await media.until(media.finals)
        assert media.text("a") == "echo"


async def test_a_bad_format_refuses_its_tag_until_a_good_one_comes(shared: Server) -> None:
    async with client(shared, "sendBack=true&errors=true") as media:
        await media.send(start_event("a", encoding="mp3"))
        await media.send(start_event("a", encoding="l16", sampleRate=44000))
        await media.send(start_event("a", encoding="l16-be", sampleRate=48000, channels=9))
        await media.say("a", "alpha")
        await media.say("b", "bravo")
        await media.until(lambda: media.finals("b"))
        assert [error["code"] for error in media.of("error", "a")] == ["bad_format"]
        assert not media.finals("a")
        await media.send(start_event("a"))
        await media.say("a", "charlie")
        await media.until(lambda: media.finals("a"))
        assert media.text("a") == "charlie"


@pytest.mark.parametrize(
    ("encoding", "rate_hz", "channels", "query"),
    [
        ("l16-be", 44100, 2, "sendBack=true"),
        ("l16", 24000, 1, "sendBack=true"),
        ("L16", 8000, 8, "sendBack=true&encoding=ogg-opus"),
        ("l16", 11025, 3, "sendBack=true"),
    ],
)
async def test_uncoded_audio_of_any_format_is_understood(
    shared: Server, encoding: str, rate_hz: int, channels: int, query: str
) -> None:
    async with client(shared, query) as media:
        await media.send(start_event("a", encoding=encoding, sampleRate=rate_hz, channels=channels))
        pcm = sentence("delta alpha foxtrot", rate_hz) + silence(600, rate_hz)
        await media.send_packets("a", l16_packets(pcm, rate_hz, channels, encoding))
        await media.until(media.finals)
        assert media.text("a") == "delta alpha foxtrot"


async def test_a_tag_may_change_its_format_and_what_came_before_is_heard_first(
    shared: Server,
) -> None:
    async with client(shared) as media:
        await media.say("a", "golf", pause_ms=0)
        await media.send(start_event("a", encoding="l16-be", sampleRate=44100, channels=2))
        uncoded = l16_packets(sentence("bravo", 44100), 44100, 2, "l16-be")
        await media.send_packets("a", [*uncoded[:4], uncoded[4][:-1], *uncoded[5:]])
        await media.send(start_event("a"))
        await media.say("a", "hotel")
        await media.until(media.finals)
        assert media.text("a") == "golf bravo hotel"


async def test_session_end_flushes_a_tail_without_a_pause_and_then_closes(shared: Server) -> None:
    async with client(shared) as media:
        await media.say("a", "foxtrot", pause_ms=0)
        await media.send('{"event":"session-end"}')
        assert await media.closed() == (1000, "Session ended")
        assert media.text("a") == "foxtrot"


async def test_a_provider_that_does_not_exist_is_a_1002(shared: Server) -> None:
    valid = ", ".join(entry.name for entry in ENTRIES)
    async with client(shared, "sendBack=true&provider=nobody") as media:
        code, reason = await media.closed()
    assert code == 1002
    assert reason == f"Invalid provider: nobody. Valid providers are: {valid}"


async def test_a_named_provider_is_used_in_any_case(shared: Server) -> None:
    async with client(shared, "sendBack=true&provider=DUMMY") as media:
        await media.until(lambda: media.of("info"))
        assert media.of("info")[0]["provider"] == "dummy"


@pytest.mark.parametrize(
    ("target", "status", "body"),
    [
        ("/elsewhere?sendBack=true", 400, "Bad URL"),
        ("/transcribe/", 400, "Bad URL"),
        ("/transcribe", 400, "No transcription output method specified"),
        ("/transcribe?sendBack=1", 400, "No transcription output method specified"),
        ("/elsewhere?encoding=pcm", 400,
         'Invalid encoding parameter: "pcm". Valid values are: opus, ogg-opus, webm'),
        ("/transcribe?sendBack=true&sessionId=m%0D%0A1", 400,
         "Invalid sessionId parameter: it holds a control character;"
         " leave it out or send another name"),
    ],
)  # fmt: skip
async def test_a_refused_upgrade_is_a_bare_status_line_and_a_body(
    shared: Server, target: str, status: int, body: str
) -> None:
    answer = await asyncio.to_thread(shared.exchange, _upgrade(target))
    assert answer == f"HTTP/1.1 {status} Bad Request\r\n\r\n{body}".encode()


async def test_any_path_that_ends_with_transcribe_is_served(shared: Server) -> None:
    answer = await asyncio.to_thread(_status_line, shared, "/a/b%20c/transcribe?sendBack=true")
    assert answer.startswith(b"HTTP/1.1 101 ")


async def test_an_over_long_message_closes_with_1009(shared: Server) -> None:
    async with client(shared) as media:
        await media.send('{"event":"ping","x":"' + "x" * 65536 + '"}')
        assert (await media.closed())[0] == 1009


async def test_a_client_that_vanishes_leaves_nothing_behind(shared: Server) -> None:
    async with client(shared) as media:
        await media.say("a", "golf", pause_ms=0)
    await asyncio.to_thread(wait_until, lambda: _status(shared) == (0, 0, 0), "all is released")


async def test_only_what_was_sent_to_its_client_counts_as_delivered() -> None:
    def delivered(server: Server, is_interim: str) -> float:
        name = "otp_transcriptions_delivered_total"
        return _metric(server, f'{name}{{is_interim="{is_interim}",provider="openai"}}')

    async with gateway(FakeOpenAI()) as (server, _):
        async with client(server, "sendBack=true") as media:
            await media.say("a", "alpha")
            await media.until(media.finals)
        await asyncio.to_thread(wait_until, lambda: delivered(server, "false") == 1, "one final")
        received = "otp_transcriptions_received_total"
        assert await asyncio.to_thread(_metric, server, received) > 1
        assert await asyncio.to_thread(delivered, server, "true") == 0


async def test_limits_refuse_what_is_too_much_and_only_that() -> None:
    limits = {
        "EDGESCRIBE_MAX_TAGS": "2", "EDGESCRIBE_MAX_TRACKS": "3", "EDGESCRIBE_MAX_SESSIONS": "2",
        "EDGESCRIBE_MAX_EVENTS_PER_S": "200",
    }  # fmt: skip
    async with (
        gateway(FakeOpenAI(), **limits) as (server, _),
        client(server, "sendBack=true&errors=true") as one,
        client(server, "sendBack=true&errors=true") as two,
    ):
        for tag in ("a", "b", "c", "c"):
            await one.say(tag, "alpha", pause_ms=0)
        for tag in ("a", "b"):
            await two.say(tag, "bravo", pause_ms=0)
        await one.until(lambda: one.of("error"))
        await two.until(lambda: two.of("error"))
        assert [(e["tag"], e["code"]) for e in one.of("error")] == [("c", "too_many_tags")]
        assert [(e["tag"], e["code"]) for e in two.of("error")] == [("b", "overloaded")]
        refused = await asyncio.to_thread(server.exchange, _upgrade("/transcribe?sendBack=true"))
        assert refused == b"HTTP/1.1 503 Service Unavailable\r\n\r\nOverloaded"
        for number in range(500):
            await one.send(json.dumps({"event": "ping", "id": number}))
        await one.until(lambda: len(one.of("pong")) == 500)
        assert [pong["id"] for pong in one.of("pong")] == list(range(500))
        slowed = "edgescribe_connections_slowed_total"
        await asyncio.to_thread(wait_until, lambda: _metric(server, slowed) > 0, slowed)


async def test_a_connection_is_slowed_by_the_audio_it_brings_as_much_as_by_its_events() -> None:
    """20 packets that skip two seconds each bring as much audio as 2,000 events."""
    limits = {"EDGESCRIBE_MAX_EVENTS_PER_S": "1000"}
    async with gateway(FakeOpenAI(), **limits) as (server, _), client(server) as media:
        started_s = time.monotonic()
        for number, packet in enumerate(packets(sentence("alpha", 48000))[:20]):
            await media.send(media_event("a", number, packet, timestamp=number * 100_000))
        await media.send('{"event":"ping","id":1}')
        await media.until(lambda: media.of("pong"))
        assert time.monotonic() - started_s > 0.7


@pytest.mark.parametrize("packets_a_piece", [400, 4000])
async def test_a_connection_is_slowed_by_the_packets_in_its_pieces(packets_a_piece: int) -> None:
    """Five pieces, of 400 packets or unusable, are far more than a second's 1,000 events."""
    limits = {"EDGESCRIBE_MAX_EVENTS_PER_S": "1000"}
    async with (
        gateway(FakeOpenAI(), **limits) as (server, _),
        client(server, "sendBack=true&errors=true&encoding=ogg-opus") as media,
    ):
        started_s = time.monotonic()
        for number in range(5):
            muxer = Muxer(1)
            piece = muxer.headers() + muxer.pages([b"\xe0"] * packets_a_piece)
            await media.send(start_event("a", encoding="ogg"))
            await media.send(media_event("a", number, piece))
        await media.send('{"event":"ping","id":1}')
        await media.until(lambda: media.of("pong"))
        assert time.monotonic() - started_s > 0.2
        refusals = [error["message"] for error in media.of("error", "a")]
        assert all("send at most 3000" in message for message in refusals)
        assert bool(refusals) == (packets_a_piece > 3000)


async def test_tags_that_are_opened_over_and_over_slow_their_connection() -> None:
    limits = {"EDGESCRIBE_MAX_EVENTS_PER_S": "200"}
    async with gateway(FakeOpenAI(), **limits) as (server, _), client(server) as media:
        started_s = time.monotonic()
        for _ in range(40):
            await media.send(start_event("a"))
            await media.send(start_event("a", encoding="mp3"))
        await media.send('{"event":"ping","id":1}')
        await media.until(lambda: media.of("pong"))
        assert time.monotonic() - started_s > 1.0


async def test_no_tag_slips_in_when_too_many_were_refused_to_remember_them_all() -> None:
    limits = {"EDGESCRIBE_MAX_TAGS": "2"}
    async with (
        gateway(FakeOpenAI(), **limits) as (server, endpoint),
        client(server, "sendBack=true&errors=true") as media,
    ):
        for number in range(10):
            await media.send(start_event(f"tag-{number}", encoding="mp3"))
            await media.say(f"tag-{number}", "alpha")
        await media.send('{"event":"ping","id":1}')
        await media.until(lambda: media.of("pong"))
        assert {error["code"] for error in media.of("error")} == {"bad_format"}
        assert await asyncio.to_thread(_status, server) == (1, 0, 0)
        assert not endpoint.connections


async def test_a_tag_whose_recognizer_refuses_is_told_so_once_and_its_neighbour_is_not() -> None:
    endpoint = FakeOpenAI(faults=[Fault(error_after_ms=0, error={"type": "invalid_request_error",
        "code": "invalid_value", "message": "no"})])  # fmt: skip
    async with (
        gateway(endpoint) as (server, _),
        client(server, "sendBack=true&errors=true") as media,
    ):
        await media.say("first", "alpha")
        await media.until(lambda: media.of("error"))
        await media.say("first", "alpha")
        await media.say("second", "bravo")
        await media.until(lambda: media.finals("second"))
        assert media.text("second") == "bravo"
        assert [(e["tag"], e["code"]) for e in media.of("error")] == [
            ("first", "recognizer_failed")
        ]


async def test_what_all_tags_of_a_connection_suffer_is_logged_once_and_counted() -> None:
    busy = Fault(status=HTTPStatus.SERVICE_UNAVAILABLE)
    async with gateway(
        FakeOpenAI(faults=lambda attempt: busy), EDGESCRIBE_FINISH_DEADLINE_S="0.2"
    ) as (server, endpoint):
        async with client(server) as media:
            for tag in ("a", "b", "c", "d"):
                await media.say(tag, "alpha")
            await asyncio.to_thread(
                wait_until, lambda: len(endpoint.connections) >= 4, "four attempts"
            )
        await asyncio.to_thread(wait_until, lambda: _status(server) == (0, 0, 0), "all released")
        await asyncio.to_thread(wait_until, lambda: "session ended" in server.log, "the log")
        entries = [line for line in server.log.splitlines() if "repeated errors" not in line]
        for event in ("recognizer failed", "last transcripts not awaited"):
            assert sum(event in line for line in entries) == 1
        assert "'last transcripts not awaited any longer': 4" in server.log


async def test_a_recorded_session_can_be_replayed() -> None:
    async with gateway(FakeOpenAI(), DUMP_WEBSOCKET_MESSAGES="true", DUMP_TRANSCRIPTS="true") as (
        server,
        _,
    ):
        async with client(server, "sendBack=true&sessionId=..%2Fm1") as media:
            await media.say("a", "hotel india")
            await media.until(media.finals)
        folder = server.data_dir / "dumps"
        await asyncio.to_thread(
            wait_until, lambda: len(list(folder.glob("*/*.jsonl"))) == 2, "the recordings"
        )
        (recording,) = folder.glob("*/media.jsonl")
        lines = [json.loads(line) for line in recording.read_text().splitlines()]
        async with client(server, "sendBack=true") as media:
            for line in lines:
                await media.send(line["data"])
            await media.until(media.finals)
            assert media.text("a") == "hotel india"
        finals = (recording.parent / "transcript.jsonl").read_text()
        assert "hotel india" in finals


async def test_the_endpoint_can_be_switched_off() -> None:
    async with gateway(FakeOpenAI(), ENABLE_TRANSCRIBE="false") as (server, _):
        answer = await asyncio.to_thread(server.exchange, _upgrade("/transcribe?sendBack=true"))
        assert answer == b"HTTP/1.1 404 Not Found\r\n\r\nTranscription endpoint disabled"


def _upgrade(target: str) -> bytes:
    return (
        f"GET {target} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


def _status_line(server: Server, target: str) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(_upgrade(target))
        return connection.recv(4096)


def _status(server: Server) -> tuple[int, int, int]:
    status = json.loads(server.get("/status").body)
    return status["active"], status["detached"], status["tracks"]


def _metric(server: Server, name: str) -> float:
    lines = server.get("/metrics").body.decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))
