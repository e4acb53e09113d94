"""The plain socket on two workers: it does not matter which one a page comes to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.asr.fakes.deepgram_endpoint import KEY
from tests.asr.fakes.flux_endpoint import FakeFlux
from tests.ingest.support.listen import Page, page
from tests.support.server import Server, running

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROUNDS = 6
"""So many that both workers have a part in it, or nearly always."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    async with FakeFlux() as service:
        settings = {
            "DEEPGRAM_API_KEY": KEY,
            "DEEPGRAM_URL": service.url,
            "PROVIDERS_PRIORITY": "flux",
        }
        with running("--workers", "2", environment=settings) as server:
            yield server


def turn_up_to(word: str, client: Page) -> int | None:
    """Under which number the client was told of the end of the turn that ends with this word."""
    ends = client.turns("EndOfTurn")
    return next((end["turn_index"] for end in ends if end["text"].endswith(word)), None)


def logged(client: Page) -> list[int]:
    """Turns that the client knows to be in the log."""
    return [each["turn_index"] for each in client.messages if each["type"] == "Logged"]


async def test_a_newer_connection_takes_over_wherever_it_lands(server: Server) -> None:
    """The older one is closed, and what it had said is in the log, whole, before the newer's."""

    async def one_round(number: int) -> None:
        name = f"session=move-{number}&log=true"
        async with page(server, name) as older:
            await older.say("alpha bravo", pause_ms=0)
            await older.until(lambda: older.turns("StartOfTurn"))
            async with page(server, name) as newer:
                code, _ = await older.closed()
                assert code == 4009
                await newer.say("charlie")
                # What the older one had said may be told before or after it.
                await newer.until(lambda: turn_up_to("charlie", newer) in logged(newer))
                resumed = next(m for m in newer.messages if m["type"] == "Resumed")
        again = f"session=move-{number}&resume={resumed['epoch']}:0"
        async with page(server, again) as reader:
            await reader.until_text("charlie")
        assert " ".join(reader.texts) == "alpha bravo charlie"

    await asyncio.gather(*(one_round(number) for number in range(ROUNDS)))
