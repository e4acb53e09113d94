"""A gateway behind the router, a speaker, and services beside them that misbehave."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from tests.asr.fakes.openai_endpoint import FakeOpenAI
from tests.ingest.support.media import openai_environment
from tests.support.server import REPOSITORY, Server, running

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
