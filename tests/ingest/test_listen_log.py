"""Pages that come back by way of the log: what they missed is told, once and in its place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import pytest_asyncio
from websockets.exceptions import ConnectionClosed

from tests.asr.fakes.deepgram_endpoint import KEY
from tests.asr.fakes.flux_endpoint import FakeFlux
from tests.ingest.support.listen import Message, Page, page
from tests.support.server import Server, running

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    async with FakeFlux() as service:
        settings = {
            "DEEPGRAM_API_KEY": KEY,
            "DEEPGRAM_URL": service.url,
            "PROVIDERS_PRIORITY": "flux",
        }
        with running("--workers", "1", environment=settings) as server:
            yield server


def of(client: Page, kind: str) -> list[Message]:
    return [message for message in client.messages if message["type"] == kind]


async def logged(client: Page, count: int) -> Message:
    """The newest ``Logged``, once there are so many."""
    await client.until(lambda: len(of(client, "Logged")) >= count)
    return of(client, "Logged")[-1]


def point(message: Message) -> str:
    return f"resume={message['epoch']}:{message['offset']}"


async def test_a_page_is_told_where_its_turns_are(server: Server) -> None:
    async with page(server, "session=told&log=true") as client:
        for word in ("alpha", "bravo"):
            await client.say(word)
            await client.until_text(word)
        await logged(client, 2)
    (resumed,) = of(client, "Resumed")
    assert resumed["recovered"]
    numbers = [(m["turn_index"], m["epoch"]) for m in of(client, "Logged")]
    assert numbers == [(0, resumed["epoch"]), (1, resumed["epoch"])]
    offsets = [message["offset"] for message in of(client, "Logged")]
    assert resumed["offset"] < offsets[0] < offsets[1]
    assert client.texts == ["alpha", "bravo"]


async def test_other_pages_are_told_nothing_of_the_log(server: Server) -> None:
    async with page(server, "session=silent") as client:
        await client.say("alpha")
        await client.until_text("alpha")
    assert {message["type"] for message in client.messages} == {"Connected", "TurnInfo"}


async def test_what_was_missed_is_told_before_anything_else(server: Server) -> None:
    """It was sent but did not arrive, as far as the page knows; numbers stay as they were."""
    async with page(server, "session=back&log=true") as client:
        for word in ("alpha", "bravo", "charlie"):
            await client.say(word)
            await client.until_text(word)
        await logged(client, 3)
        await client.lose()
    first = of(client, "Logged")[0]
    async with page(server, f"session=back&{point(first)}") as again:
        await logged(again, 2)
        await again.say("delta")
        await again.until_text("delta")
        await logged(again, 3)
    assert of(again, "Resumed") == [{"type": "Resumed", "recovered": True,
        "epoch": first["epoch"], "offset": first["offset"]}]  # fmt: skip
    assert again.texts == ["bravo", "charlie", "delta"]
    ends = again.turns("EndOfTurn")
    assert [end["turn_index"] for end in ends] == [1, 2, 3]
    told = [message for message in again.messages if message["type"] in ("Connected", "TurnInfo")]
    assert [message["sequence_id"] for message in told] == list(range(len(told)))


async def test_a_turn_that_ended_while_the_page_was_away_is_told_once(server: Server) -> None:
    """The log has it and the worker has kept it: both would tell."""
    async with page(server, "session=once&log=true") as client:
        await client.say("alpha")
        await client.until_text("alpha")
        seen = await logged(client, 1)
        await client.say("bravo", pause_ms=0)
        await client.until(lambda: len(client.turns("StartOfTurn")) == 2)
        await client.lose()
    await asyncio.sleep(0)
    async with page(server, f"session=once&{point(seen)}") as again:
        await again.until_text("bravo")
        await again.say("charlie")
        await again.until_text("charlie")
        await logged(again, 2)
    assert again.texts == ["bravo", "charlie"]


async def test_only_the_own_turns_are_told(server: Server) -> None:
    """Two speakers of a session; each hears itself, neither takes the other's place."""
    queries = [f"session=two&speaker={name}&log=true" for name in ("ann", "bob")]
    async with page(server, queries[0]) as ann, page(server, queries[1]) as bob:
        for client, word in ((ann, "alpha"), (bob, "bravo")):
            await client.say(word)
            await client.until_text(word)
            await logged(client, 1)
        assert ann.close is bob.close is None
    epoch = of(ann, "Logged")[0]["epoch"]
    async with page(server, f"session=two&speaker=bob&resume={epoch}:0") as back:
        await logged(back, 1)
        assert back.texts == ["bravo"]


async def test_a_history_that_is_no_more_is_said_to_be(server: Server) -> None:
    """All finals that are there follow."""
    async with page(server, "session=lost&log=true") as client:
        await client.say("alpha")
        await client.until_text("alpha")
        await logged(client, 1)
    async with page(server, "session=lost&resume=other:3") as back:
        await logged(back, 1)
        assert not of(back, "Resumed")[0]["recovered"]
        assert back.texts == ["alpha"]


async def test_a_session_that_is_deleted_lets_its_pages_go(server: Server) -> None:
    async with page(server, "session=gone&log=true") as client:
        await client.say("alpha")
        await client.until_text("alpha")
        await logged(client, 1)
        answer = await asyncio.to_thread(server.get, "/v1/sessions/gone", "DELETE")
        assert answer.status in (200, 204), answer
        with suppress(ConnectionClosed):  # it may be told before it has said a word
            await client.say("bravo")
        assert await client.closed() == (4004, "The session has been deleted")
