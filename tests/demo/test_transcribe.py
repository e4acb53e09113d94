"""``edgescribe transcribe`` against a scripted gateway."""

from __future__ import annotations

import argparse
import asyncio
import json
from base64 import b64decode
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.asyncio.server import ServerConnection

from _native.ogg import Muxer
from edge.cli import transcribe as command
from edge.demo import transcriber
from edge.demo.client import Disconnected
from edge.demo.transcriber import NotTranscribed
from tests.audio.support.packets import speech
from tests.demo.recordings import tone, write_wav
from tests.demo.scripted import gateway, result
from tests.support.containers import webm


@pytest.fixture
def wav(tmp_path: Path) -> str:
    return str(write_wav(tmp_path / "a.wav", tone(1.0).pcm, 16000))


async def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return await asyncio.to_thread(command.run, parser.parse_args(words))


class Listener:
    """A gateway that answers ``session-end`` with two finals, out of order, and a close."""

    def __init__(self) -> None:
        self.events: list[dict[str, object]] = []
        self.query: dict[str, list[str]] = {}

    async def __call__(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.query = parse_qs(urlsplit(socket.request.path).query)
        async for data in socket:
            self.events.append(json.loads(data))
            if self.events[-1]["event"] == "session-end":
                await socket.send(result("world.", start_ms=600, end_ms=990))
                await socket.send(result("Hello,", start_ms=40, end_ms=480))
                await socket.send(result("", start_ms=0, end_ms=0))
                return


async def test_text_lines_come_as_they_are_heard(
    wav: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with gateway(Listener()) as address:
        assert await run(wav, f"http://{address}") == 0
    assert capsys.readouterr().out.splitlines() == ["world.", "Hello,"]


async def test_json_has_the_text_and_the_segments_in_order(
    wav: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with gateway(Listener()) as address:
        assert await run(wav, address, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "text": "Hello, world.",
        "segments": [
            {"start_ms": 40, "end_ms": 480, "text": "Hello,", "confidence": 0.9},
            {"start_ms": 600, "end_ms": 990, "text": "world.", "confidence": 0.9},
        ],
    }


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("srt", ["1", "00:00:00,040 --> 00:00:00,480", "Hello,", "", "2"]),
        ("vtt", ["WEBVTT", "", "00:00:00.040 --> 00:00:00.480", "Hello,", ""]),
    ],
)
async def test_subtitles_have_the_times_of_the_finals(
    wav: str, form: str, expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    async with gateway(Listener()) as address:
        assert await run(wav, address, "--format", form) == 0
    assert capsys.readouterr().out.splitlines()[:5] == expected


@pytest.mark.parametrize("form", ["ogg", "webm"])
async def test_opus_files_are_sent_as_they_are(tmp_path: Path, form: str) -> None:
    packets = speech(50)
    muxer = Muxer(1)
    data = webm(packets) if form == "webm" else muxer.headers() + muxer.pages(packets)
    path = tmp_path / f"a.{form}"
    path.write_bytes(data)
    listener = Listener()
    async with gateway(listener) as address:
        assert await run(str(path), address) == 0
    media = [event["media"] for event in listener.events[1:-1]]
    assert [b64decode(each["payload"]) for each in media] == packets  # type: ignore[index]
    assert [each["timestamp"] for each in media] == [  # type: ignore[index]
        str(960 * number) for number in range(50)
    ]


async def test_every_frame_is_sent_in_order_and_no_faster_than_the_pace(wav: str) -> None:
    listener = Listener()
    loop = asyncio.get_running_loop()
    async with gateway(listener) as address:
        began_s = loop.time()
        await run(wav, f"ws://{address}/transcribe?lang=en")
        took_s = loop.time() - began_s
    names = [event["event"] for event in listener.events]
    assert names == ["start", *["media"] * 50, "session-end"]
    chunks = [e["media"]["chunk"] for e in listener.events[1:-1]]  # type: ignore[index]
    assert chunks == [str(n) for n in range(50)]
    assert took_s >= 49 * 0.02 / transcriber.PACE
    assert listener.query["lang"] == ["en"]
    assert listener.query["times"] == listener.query["sendBack"] == ["true"]


async def test_a_refused_track_is_told_in_the_gateways_words(wav: str) -> None:
    async def refuse(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send('{"event":"error","code":"overloaded","message":"too many tracks"}')
        await socket.wait_closed()

    async with gateway(refuse) as address:
        with pytest.raises(NotTranscribed, match="too many tracks"):
            await run(wav, address)


@pytest.mark.parametrize("after", [1, 51])
async def test_a_gateway_that_breaks_off_is_told(wav: str, after: int) -> None:
    async def leave(socket: ServerConnection) -> None:
        for _ in range(after):
            await socket.recv()
        await socket.close(1011, "crashed")

    async with gateway(leave) as address:
        with pytest.raises(Disconnected, match="1011 crashed"):
            await run(wav, address)


async def test_silence_after_the_end_is_the_end(
    wav: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcriber, "_SILENCE_S", 1.0)

    async def stay(socket: ServerConnection) -> None:
        async for data in socket:
            if json.loads(data)["event"] == "session-end":
                await socket.send(result("Hello."))

    async with gateway(stay) as address:
        assert await run(wav, address) == 0
    assert capsys.readouterr().out == "Hello.\n"
