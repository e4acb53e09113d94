"""A call shows its key where its operator can put one: in the parameters of its stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from edge.auth.rooms import room_token
from tests.ingest.support.doors import call
from tests.support.server import Server, running, wait_until

ROOM_SECRET = "a secret of rooms, no less than that"
INGEST, READ = "ingest-key-0123456789", "read-key-0123456789"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    environment = {
        "EDGESCRIBE_API_KEYS": f"{INGEST}:ingest,{READ}:read",
        "EDGESCRIBE_ROOM_SECRET": ROOM_SECRET,
        "EDGESCRIBE_FRONT_DOORS": "twilio",
        "EDGESCRIBE_ENABLE_DUMMY_PROVIDER": "true",
        "PROVIDERS_PRIORITY": "dummy",
    }
    with running("--workers", "1", environment=environment) as server:
        yield server


async def ending(server: Server, messages: Sequence[str]) -> tuple[int | None, str | None]:
    """How a connection ends on which these are sent; what comes back before is nothing."""
    async with connect(f"ws://{server.address}/twilio") as client:
        with pytest.raises(ConnectionClosed):
            for message in messages:
                await client.send(message)
            async with asyncio.timeout(10):
                raise AssertionError(f"Twilio was told {await client.recv()!r}")
        return client.close_code, client.close_reason


@pytest.mark.parametrize("key", [INGEST, room_token(ROOM_SECRET, "CA1")], ids=["key", "room"])
async def test_a_key_in_the_parameters_lets_a_call_in(server: Server, key: str) -> None:
    assert await ending(server, call("CA1", key=key)) == (1000, "The stream has ended")

    def tracks() -> bool:
        answer = server.get("/v1/sessions/CA1", headers={"x-api-key": READ})
        return answer.status == 200 and json.loads(answer.body)["tracks"] == ["inbound", "outbound"]

    await asyncio.to_thread(wait_until, tracks, "both sides of the call")
    assert key not in server.log


@pytest.mark.parametrize(
    ("parameters", "code", "told"),
    [
        ({}, 4401, "parameter key"),
        ({"key": "wrong-key-0123456789"}, 4401, ""),
        ({"key": READ}, 4003, "ingest"),
        ({"key": room_token(ROOM_SECRET, "CA1")}, 4401, ""),
        ({"key": room_token(ROOM_SECRET, "CA2"), "session": "CA1"}, 4401, ""),
    ],
    ids=["none", "wrong", "scope", "other call's", "other session's"],
)
async def test_a_call_without_a_good_key_is_hung_up(
    server: Server, parameters: dict[str, str], code: int, told: str
) -> None:
    closed = await ending(server, call("CA2", **parameters))
    assert closed[0] == code and told in (closed[1] or "")
    answer = server.get("/v1/sessions/CA2", headers={"x-api-key": READ})
    assert answer.status == 404


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        (call("CA3", key=INGEST)[2:3], "connected and start"),
        (["no event"], "connected and start"),
        (['{"event":"start","x":' + "[" * 60_000], "connected and start"),
        (call("CA3")[:1] * 10, "No key"),
    ],
    ids=["audio first", "garbage", "depth", "connected and again"],
)
async def test_what_comes_before_the_key_is_bounded(
    server: Server, messages: list[str], told: str
) -> None:
    code, reason = await ending(server, messages)
    assert code == 4401 and told in (reason or "")
