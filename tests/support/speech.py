"""Real speech for tests and benchmarks.

It comes out of the installed recognizer package, so that a fresh clone needs nothing else. Further
recordings and the Opus conformance streams are used where a machine has them: in the folder a
variable names, else beside the repository.
"""

from __future__ import annotations

import base64
import json
import os
import wave
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection

from _native.opus import Encoder

REPOSITORY = Path(__file__).parents[2]


@cache
def two_cities_pcm() -> bytes:
    """44 s of one reader, s16le mono at 48 kHz."""
    resource = files("moonshine_voice") / "assets" / "two_cities.wav"
    with as_file(resource) as path, wave.open(str(path), "rb") as wav:
        assert (wav.getnchannels(), wav.getsampwidth(), wav.getframerate()) == (1, 2, 48000)
        return wav.readframes(wav.getnframes())


def speech_packets(
    count: int,
    *,
    frame_ms: float = 20,
    bitrate_bps: int = 32000,
    fec: bool = False,
    dtx: bool = False,
    loss_percent: int = 0,
) -> list[bytes]:
    """The first ``count`` packets of two_cities, mono from 48 kHz; options are the Encoder's."""
    pcm = two_cities_pcm()
    encoder = Encoder(bitrate_bps=bitrate_bps, fec=fec, dtx=dtx, loss_percent=loss_percent)
    size = int(96 * frame_ms)
    return [encoder.encode(pcm[start : start + size]) for start in range(0, count * size, size)]


async def speak(client: ClientConnection, tag: str, count: int) -> None:
    """Send so many packets of 20 ms as media events, from the beginning of a connection."""
    for number, packet in enumerate(speech_packets(count)):
        media = {
            "tag": tag,
            "chunk": str(number),
            "timestamp": str(number * 960),
            "payload": base64.b64encode(packet).decode(),
        }
        await client.send(json.dumps({"event": "media", "media": media}))


def shared_folder(variable: str, name: str) -> Path:
    """The folder ``variable`` names, else ``../shared/<name>``; without one the test is skipped."""
    folder = Path(os.environ.get(variable) or REPOSITORY.parent / "shared" / name)
    if not folder.is_dir():
        pytest.skip(f"NOT TESTED: {folder} is absent; set {variable} to the folder that has it")
    return folder
