"""A gateway behind the router, a speaker, and services beside them that misbehave."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from tests.asr.fakes.openai_endpoint import FakeOpenAI
from tests.asr.support.tones import silence, tone
from tests.ingest.support.media import openai_environment
from tests.ingest.support.session import SessionClient
from tests.support.server import REPOSITORY, Server, running

RATE_HZ = 16000
FRAME_MS = 100
FRAME_BYTES = RATE_HZ * 2 * FRAME_MS // 1000
BAD = ("wild.localhost", "ruin.localhost")
FILE = """
[table]
zones = ["localhost"]
gateway_hosts = ["127.0.0.1"]
services = ["gateway", "wild", "ruin", "steady"]

[services.production]
wild.source = "tests.router.support.bad_services:wild_sanic"
ruin.source = "tests.router.support.bad_services:wild_asgi"
steady.source = "tests.router.support.bad_services:steady"
"""


def _frames(pcm: bytes) -> list[bytes]:
    return [pcm[at : at + FRAME_BYTES] for at in range(0, len(pcm), FRAME_BYTES)]


WORD = _frames(tone("alpha", RATE_HZ) + silence(200, RATE_HZ))
END = _frames(silence(200, RATE_HZ))
"""With these the recognizer has heard the silence that ends a word."""


@asynccontextmanager
async def gateway_among_services(folder: Path) -> AsyncIterator[Server]:
    """One worker, with services good and bad in its process."""
    file = folder / "router.toml"
    file.write_text(FILE, encoding="utf-8")
    async with FakeOpenAI() as endpoint:
        settings = openai_environment(endpoint, EDGESCRIBE_ROUTER_FILE=str(file))
        with running("--workers", "1", environment=settings) as server:
            yield server


@contextmanager
def misbehaving(port: int, mb_per_s: float = 0.0) -> Iterator[subprocess.Popen[str]]:
    """The bad services are asked for all that they can do; what was done is printed at the end.

    Each of them sends as fast as it can, or at a rate.
    """
    module = "tests.router.support.bad_clients"
    command = [sys.executable, "-m", module, str(port), str(mb_per_s), *BAD]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as clients:
        try:
            yield clients
        finally:
            print("beside:", clients.communicate(timeout=20)[0].strip())
            assert clients.returncode == 0


async def results_ms(speaker: SessionClient, count: int) -> list[float]:
    """From the audio that ends a word to its result, of so many words; sorted."""
    took_ms = []
    for _ in range(count):
        speaker.messages.clear()
        await speaker.audio(*WORD, ms=FRAME_MS)
        await asyncio.sleep(0.01)
        began_s = time.monotonic()
        await speaker.audio(*END, ms=FRAME_MS)
        await speaker.until(lambda: any(part["stable"] for part in speaker.of("part")))
        took_ms.append((time.monotonic() - began_s) * 1000)
    return sorted(took_ms)


def p99(sorted_ms: list[float]) -> float:
    """The 99th percentile."""
    return sorted_ms[max(0, int(0.99 * len(sorted_ms)) - 1)]
