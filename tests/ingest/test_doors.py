"""The doors from outside: telephone calls, forms of audio, refusals, and clients that mean harm.

Real speech through the embedded recognizer where something is heard.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from openapi_spec_validator import OpenAPIV31SpecValidator
from websockets.exceptions import InvalidStatus

from tests.ingest.support.doors import (
    ENVIRONMENT,
    SAID,
    Client,
    call,
    client,
    errors,
    form,
    ogg_opus,
    speech,
    text_of,
    until_said,
    wav,
    webm_opus,
    wide_wav,
)
from tests.support.server import Server, running
from tests.support.speech import speech_packets

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Server]:
    environment = {**ENVIRONMENT, "EDGESCRIBE_FILE_AUDIO_S": "20"}
    with running("--workers", "1", environment=environment) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def silent(gateway: Server) -> AsyncIterator[tuple[Client, Client, Client]]:
    """Clients that say nothing, from the first test on: the last one looks what became of them."""
    async with (
        client(gateway, "/twilio") as twilio,
        client(gateway, "/v1/listen?model=nova-3") as deepgram,
        client(gateway, "/v1/listen?model=nova-3") as alive,
    ):

        async def keep_alive() -> None:
            while True:
                await alive.send("KeepAlive")
                await asyncio.sleep(2)

        sending = asyncio.create_task(keep_alive())
        yield twilio, deepgram, alive
        sending.cancel()


# Telephone calls


async def test_a_call_is_a_session_with_two_sides(gateway: Server) -> None:
    async with client(gateway, "/twilio") as twilio:
        for message in call("CA1", track="outbound"):
            await twilio.socket.send(message)
        assert await twilio.closed() == (1000, "The stream has ended")
    await until_said(gateway, "CA1")
    state = json.loads(gateway.get("/v1/sessions/CA1").body)
    assert state["tracks"] == ["inbound", "outbound"]
    assert not twilio.messages, "Twilio is told nothing"


async def test_a_call_is_named_by_its_parameters(gateway: Server) -> None:
    async with client(gateway, "/twilio") as twilio:
        for message in call("CA2", session="support-4711", language="en", provider="embedded"):
            await twilio.socket.send(message)
        await twilio.closed()
    await until_said(gateway, "support-4711")
    assert gateway.get("/v1/sessions/CA2").status == 404


@pytest.mark.parametrize(
    ("start", "told"),
    [
        ({"callSid": "CA3", "mediaFormat": {"encoding": "audio/x-l16"}}, "audio/x-mulaw"),
        ({"callSid": ""}, "0 bytes"),
        ({"callSid": "CA3", "customParameters": {"provider": "parrot"}}, "embedded"),
    ],
)
async def test_a_call_that_cannot_be_heard_is_hung_up(
    gateway: Server, start: dict[str, Any], told: str
) -> None:
    async with client(gateway, "/twilio") as twilio:
        await twilio.socket.send(json.dumps({"event": "start", "start": start}))
        code, reason = await twilio.closed()
    assert code == 1008 and told in reason


async def test_events_that_are_none_cost_a_call_nothing(gateway: Server) -> None:
    first, start, *rest = call("CA4")
    bad = ["", "[]", "{", '{"event":"mark"}', '{"event":"media","media":{"payload":"?"}}', rest[0]]
    bad += ['{"event":"media","media":{"payload":"","track":"inbound"}}', '{"event":"dtmf"}']
    bad += ['{"event":"media","media":{"payload":"////","timestamp":"-9"}}', "[" * 10_000]
    async with client(gateway, "/twilio") as twilio:
        for message in (*bad, first, *bad, start, start, *bad, *rest):
            await twilio.socket.send(message)
        assert (await twilio.closed())[0] == 1000
    await until_said(gateway, "CA4")


# Deepgram


@pytest.mark.parametrize(
    ("form", "query"),
    [
        ("wav", ""),
        ("webm", ""),
        ("ogg", "encoding=ogg-opus"),
        ("packets", "encoding=opus&sample_rate=48000"),
        ("stereo", "encoding=linear16&sample_rate=16000&channels=2"),
    ],
)
async def test_audio_is_heard_in_any_form(gateway: Server, form: str, query: str) -> None:
    stereo = b"".join(speech(16000)[at : at + 2] * 2 for at in range(0, len(speech(16000)), 2))
    audio = {"wav": wav, "ogg": ogg_opus, "webm": webm_opus}
    async with client(gateway, f"/v1/listen?model=nova-3&{query}") as listener:
        if form == "packets":
            for packet in speech_packets(430):
                await listener.socket.send(packet)
        else:
            await listener.audio(audio[form]() if form in audio else stereo, 4099)
        await listener.send("CloseStream")
        assert (await listener.closed())[0] == 1000
    assert errors(listener.finals) < 0.25
    assert listener.of("Metadata")[0]["duration"] == pytest.approx(8.6, abs=0.2)
    assert {one["is_final"] for one in listener.of("Results")} == {True}, "interims are asked for"


async def test_channels_are_heard_one_by_one(gateway: Server) -> None:
    """Two channels, a second of the first being silent at the beginning: two speakers."""
    left = bytes(32000) + speech(16000)
    right = bytes(len(left))
    both = b"".join(left[at : at + 2] + right[at : at + 2] for at in range(0, len(left), 2))
    query = "encoding=linear16&sample_rate=16000&channels=2&multichannel=true&session=channels"
    async with client(gateway, f"/v1/listen?model=nova-3&{query}") as listener:
        await listener.audio(both, 4097)
        await listener.send("Finalize")
        await listener.until(
            lambda: sum(one["from_finalize"] for one in listener.of("Results")) == 2
        )
        await listener.send("CloseStream")
        await listener.closed()
    results = listener.of("Results")
    assert errors(listener.finals) < 0.25
    assert {tuple(one["channel_index"]) for one in results} == {(0, 2), (1, 2)}
    silent = [one for one in results if one["channel_index"] == [1, 2]]
    assert [one["channel"]["alternatives"][0]["transcript"] for one in silent] == [""]
    spoken = next(one for one in results if one["channel_index"] == [0, 2])
    assert spoken["start"] == pytest.approx(2.2, abs=0.2)


async def test_a_stream_goes_on_after_finalize_with_its_times(gateway: Server) -> None:
    query = "encoding=linear16&sample_rate=16000"
    async with client(gateway, f"/v1/listen?model=nova-3&{query}", "token", "key") as listener:
        assert listener.socket.subprotocol == "token", "browsers offer it beside their key"
        for _ in range(2):
            count = sum(one["from_finalize"] for one in listener.of("Results"))
            await listener.audio(speech(16000))
            await listener.send("Finalize")
            await listener.until(
                lambda count=count: (
                    sum(one["from_finalize"] for one in listener.of("Results")) > count
                )
            )
        await listener.send("CloseStream")
        await listener.closed()
    starts = [one["start"] for one in listener.of("Results") if one["start"]]
    assert starts == sorted(starts)
    assert any(one == pytest.approx(8.6 + 1.2, abs=0.2) for one in starts)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("model=parrot", "No such model"),
        ("model=nova-3&encoding=linear16", "needs sample_rate"),
        ("model=nova-3&encoding=linear16&sample_rate=9000", "sampleRate must be one of"),
        ("model=nova-3&encoding=flac", "cannot be decoded"),
        ("model=nova-3&redact=pci", "redact is not supported"),
        ("model=nova-3&diarize=true", "diarize is not supported"),
        ("model=nova-3&interim_results=perhaps", "true or false"),
        ("model=nova-3&utterance_end_ms=1000", "needs interim_results"),
        ("model=nova-3&session=%00", "control character"),
    ],
)
async def test_what_cannot_be_done_is_refused_in_deepgrams_form(
    gateway: Server, query: str, told: str
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with client(gateway, f"/v1/listen?{query}"):
            pass
    response = refused.value.response
    assert response.status_code == 400
    body = json.loads(response.body or b"")
    assert told in body["err_msg"] and body["request_id"]


async def test_texts_that_are_none_are_answered_and_audio_that_is_none_ends_it(
    gateway: Server,
) -> None:
    async with client(gateway, "/v1/listen?model=nova-3") as listener:
        await listener.socket.send("{")
        await listener.send("Configure", keyterms=["x"])
        await listener.send("KeepAlive")
        await listener.until(lambda: listener.of("ConfigureFailure"))
        assert listener.of("Error")[0]["variant"] == "SchemaError"
        await listener.socket.send(b"OggS" + bytes(100))
        await listener.socket.send(b"\xff" * 300_000)
        code, reason = await listener.closed()
    assert code == 1008 and reason.startswith("DATA-0000")


# OpenAI


async def test_turns_are_told_as_the_recognizer_hears_them(gateway: Server) -> None:
    """For a browser: started, deltas while somebody speaks, stopped, committed, completed."""
    target = "/v1/realtime?intent=transcription"
    offered = ("realtime", "openai-insecure-api-key.key", "openai-beta.realtime-v1")
    async with client(gateway, target, *offered) as page:
        assert page.socket.subprotocol == "realtime"
        pcm = speech(24000) + bytes(48000)
        for at in range(0, len(pcm), 4800):
            audio = base64.b64encode(pcm[at : at + 4800]).decode()
            await page.send("input_audio_buffer.append", audio=audio)
            await asyncio.sleep(0.09)
        transcription = "conversation.item.input_audio_transcription"
        await page.until(lambda: len(page.of(f"{transcription}.completed")) >= 2)
        completed = page.of(f"{transcription}.completed")
    assert errors(" ".join(event["transcript"] for event in completed)) < 0.25
    early = 0
    for item in (event["item_id"] for event in completed):
        kinds = [
            event["type"].removeprefix("input_audio_buffer.")
            for event in page.messages
            if item in (event.get("item_id"), event.get("item", {}).get("id"))
        ]
        early += f"{transcription}.delta" in kinds[: kinds.index("speech_stopped")]
        assert [kind for kind in kinds if not kind.endswith(".delta")] == [
            "speech_started",
            "speech_stopped",
            "committed",
            "conversation.item.created",
            f"{transcription}.completed",
        ]
    assert early, "words are told while somebody speaks"
    stopped = page.of("input_audio_buffer.speech_stopped")
    assert stopped[0]["audio_end_ms"] == pytest.approx(4700, abs=300)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "intent=conversation",
        "intent=transcription&model=parrot",
        "intent=transcription&session=%07",
    ],
)
async def test_what_is_no_transcription_is_refused_in_openais_form(
    gateway: Server, query: str
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with client(gateway, f"/v1/realtime?{query}"):
            pass
    error = json.loads(refused.value.response.body or b"")["error"]
    assert refused.value.response.status_code == 400
    assert error["type"] == "invalid_request_error" and error["message"]


async def test_events_that_cannot_be_taken_are_answered_and_cost_nothing(gateway: Server) -> None:
    async with client(gateway, "/v1/realtime?intent=transcription") as page:
        await page.socket.send("{")
        await page.socket.send(b"\x00\x01")
        await page.socket.send("[" * 10_000)
        await page.send("response.create", event_id="e4")
        await page.send("input_audio_buffer.append", audio="?", event_id="e5")
        await page.send("session.update", session={"type": "realtime"})
        await page.send("session.update", session={"type": "transcription", "voice": "x"})
        model = {"audio": {"input": {"transcription": {"model": "parrot"}}}}
        await page.send("session.update", session={"type": "transcription", **model})
        audio = base64.b64encode(bytes(9600)).decode()
        await page.send("input_audio_buffer.append", audio=audio)
        form = {"audio": {"input": {"format": {"type": "audio/pcma"}}}}
        await page.send("session.update", session={"type": "transcription", **form})
        await page.send("input_audio_buffer.clear")
        await page.until(lambda: page.of("input_audio_buffer.cleared"))
    assert [(error["code"], error["param"]) for error in page.errors] == [
        ("invalid_json", None),
        ("invalid_json", None),
        ("invalid_json", None),
        ("invalid_value", "type"),
        ("invalid_value", "audio"),
        ("invalid_value", "session.type"),
        ("unknown_parameter", "session.voice"),
        ("model_not_found", "session.audio.input.transcription.model"),
        ("invalid_value", "session.audio.input"),
    ]
    assert [error["event_id"] for error in page.errors[3:5]] == ["e4", "e5"]


async def test_a_client_whose_language_nobody_knows_is_told(gateway: Server) -> None:
    async with client(gateway, "/v1/realtime?intent=transcription") as page:
        source = {"transcription": {"model": "whisper-1", "language": "zh"}}
        session = {"type": "transcription", "audio": {"input": source}}
        await page.send("session.update", session=session)
        audio = base64.b64encode(speech(24000)[:96000]).decode()
        await page.send("input_audio_buffer.append", audio=audio)
        assert (await page.closed())[0] == 1011
    assert page.errors[-1]["code"] == "recognizer_failed"
    assert "English" in page.errors[-1]["message"]


async def test_files_may_not_play_for_ever(gateway: Server) -> None:
    """20 s are allowed, whether a header says how long it plays or only its packets do."""
    long = wav()[:40] + b"\xff\xff\xff\xff" + speech(16000) * 3
    for file in (long, ogg_opus() + b"".join(ogg_opus() for _ in range(3))):
        headers = {"content-type": "multipart/form-data; boundary=b"}
        answer = await asyncio.to_thread(
            gateway.get, "/v1/audio/transcriptions", "POST", body=form(file), headers=headers
        )
        assert answer.status == 400
        assert "20 s" in json.loads(answer.body)["error"]["message"]


async def test_work_for_a_file_ends_when_its_client_hangs_up(gateway: Server) -> None:
    """Though all of its large body has come: nothing of it is said after that."""
    frames = (speech(48000)[at : at + 2] * 8 for at in range(0, len(speech(48000)), 2))
    body = form(wide_wav(b"".join(frames) * 2), b"left")
    head = f"content-length: {len(body)}\r\ncontent-type: multipart/form-data; boundary=b\r\n"
    _, writer = await asyncio.open_connection(gateway.host, gateway.port)
    before = json.loads(gateway.get("/status").body)["active"]
    writer.write(f"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\n{head}\r\n".encode())
    writer.write(body)
    await writer.drain()
    await until_said(gateway, "left", 0.8)
    writer.close()
    async with asyncio.timeout(5):
        while json.loads(gateway.get("/status").body)["active"] > before:
            await asyncio.sleep(0.02)
    assert len(text_of(gateway, "left")) < 1.5 * len(SAID)


async def test_the_file_endpoint_is_described(gateway: Server) -> None:
    document = json.loads(gateway.get("/openapi.json").body)
    OpenAPIV31SpecValidator(document).validate()
    operation = document["paths"]["/v1/audio/transcriptions"]["post"]
    assert list(operation["requestBody"]["content"]) == ["multipart/form-data"]


async def test_doors_are_closed_unless_asked_for_and_take_no_more_than_they_can() -> None:
    """A path of ``/listen`` stays what it was."""
    environment = {
        "ENABLE_DUMMY_PROVIDER": "true",
        "PROVIDERS_PRIORITY": "dummy",
        "EDGESCRIBE_FRONT_DOORS": "deepgram,twilio",
        "EDGESCRIBE_LISTEN_PATHS": "/listen,/v1/listen",
        "EDGESCRIBE_MAX_SESSIONS": "2",
    }
    with running("--workers", "1", environment=environment) as server:
        async with client(server, "/v1/listen") as page:
            await page.until(lambda: page.of("Connected"))
            await page.leave()
        with pytest.raises(InvalidStatus) as refused:
            async with client(server, "/v1/realtime?intent=transcription"):
                pass
        assert refused.value.response.status_code == 400
        assert server.get("/v1/audio/transcriptions", "POST").status == 404
        assert server.get("/v1/listen").status == 426
        async with client(server, "/twilio"), client(server, "/twilio"):
            with pytest.raises(InvalidStatus) as refused:
                async with client(server, "/twilio"):
                    pass
            assert refused.value.response.status_code == 503


async def test_who_says_nothing_is_closed_in_time(silent: tuple[Client, Client, Client]) -> None:
    """Ten seconds for Twilio's ``start``, and for Deepgram's audio or ``KeepAlive``."""
    twilio, deepgram, alive = silent
    if deepgram.close is None:
        await deepgram.closed()
    assert deepgram.close is not None
    assert deepgram.close[0] == 1011 and deepgram.close[1].startswith("NET-0001")
    if twilio.close is None:
        await twilio.closed()
    assert twilio.close is not None and twilio.close[0] == 1008
    assert alive.close is None
