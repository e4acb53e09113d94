"""Two people's real speech of a minute each, as an interview's two streams."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np

from edge.demo.recorder import RATE_HZ
from edge.demo.speech import TWO_CITIES, Speech, read_wav, resample
from tests.support.speech import shared_folder, two_cities_pcm

PAUSE_S = 1.0
TEACHER = ("en_ls1088.wav",)
"""After the reader of the recognizer's package."""
STUDENTS = (
    "en_austen_0870.wav",
    "en_austen_0880.wav",
    "en_austen_0890.wav",
    "en_austen_0920.wav",
    "en_austen_0930.wav",
    "en_jfk.wav",
    "en_ls1995.wav",
    "en_lj050.wav",
)


class Said(msgspec.Struct):
    """What one side says."""

    speech: Speech
    text: str


def interview() -> tuple[Said, Said]:
    """The teacher's side and the students'; without the recordings the test is skipped."""
    folder = shared_folder("EDGESCRIBE_SPEECH_DIR", "speech")
    texts = {
        item["file"]: item["text"]
        for item in json.loads((folder / "manifest.json").read_text())["items"]
    }
    reader = np.frombuffer(two_cities_pcm(), "<i2")
    opening = resample(reader, 48000, RATE_HZ).tobytes()
    teacher = [(opening, TWO_CITIES), *((_pcm(folder / name), texts[name]) for name in TEACHER)]
    students = [(_pcm(folder / name), texts[name]) for name in STUDENTS]
    return _joined(teacher), _joined(students)


def _pcm(path: Path) -> bytes:
    speech = read_wav(path)
    assert speech.rate_hz == RATE_HZ
    return speech.pcm


def _joined(parts: list[tuple[bytes, str]]) -> Said:
    pause = bytes(2 * round(PAUSE_S * RATE_HZ))
    pcm = b"".join(pcm + pause for pcm, _ in parts)
    return Said(Speech(pcm, RATE_HZ), " ".join(text for _, text in parts))
