"""A key that is removed, or whose time passes, takes its open connections along; no other's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from edge.auth.keys import new_key, read, write
from tests.support.server import Server, edgescribe, running

GIVEN = "a-key-of-the-settings-0123"
WITHIN_S = 10.0
Sockets = tuple[Server, Path]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Sockets]:
    """Two workers, so that each has to notice by itself."""
    path = tmp_path / "keys.json"
    environment = {
        "EDGESCRIBE_KEYS_FILE": str(path),
        "EDGESCRIBE_API_KEYS": f"{GIVEN}:ingest+read",
        "EDGESCRIBE_ENABLE_DUMMY_PROVIDER": "true",
        "PROVIDERS_PRIORITY": "dummy",
    }
    with running("--workers", "2", environment=environment) as server:
        yield server, path


def added(path: Path, name: str) -> str:
    done = edgescribe("keys", "add", name, "--data-dir", str(path.parent))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


async def speaking(server: Server, key: str, session: str) -> ClientConnection:
    """A socket with the key in its handshake, once the worker knows of the key."""
    url = f"ws://{server.address}/listen?session={session}"
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                return await connect(url, additional_headers={"x-api-key": key})
            except InvalidStatus as refused:
                assert refused.response.status_code == 401
                await asyncio.sleep(0.05)


async def recording(server: Server, key: str, session: str) -> ClientConnection:
    """A recorder, whose key comes in its first message."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            client = await connect(f"ws://{server.address}/v1/audio/ws/{session}/teacher")
            await client.send(json.dumps({"type": "auth", "key": key}))
            with suppress(ConnectionClosed):
                assert json.loads(await client.recv()) == {"type": "auth_ok"}
                return client
            await asyncio.sleep(0.05)


async def closed(client: ClientConnection) -> tuple[int | None, str | None]:
    async with asyncio.timeout(WITHIN_S):
        with pytest.raises(ConnectionClosed):
            while True:
                await client.recv()
    return client.close_code, client.close_reason


async def lives(client: ClientConnection) -> None:
    async with asyncio.timeout(WITHIN_S):
        await (await client.ping())


async def test_a_removed_key_has_nothing_open_any_more(gateway: Sockets) -> None:
    server, path = gateway
    lost, kept = added(path, "lost"), added(path, "kept")
    theirs = [await speaking(server, lost, f"lost-{number}") for number in range(6)]
    theirs.append(await recording(server, lost, "lost-recorder"))
    others = [await speaking(server, key, f"{key[:5]}-kept") for key in (kept, GIVEN)]
    others.append(await recording(server, kept, "kept-recorder"))
    (id_,) = (each.id for each in read(path) if each.name == "lost")
    done = edgescribe("keys", "remove", id_, "--data-dir", str(path.parent))
    assert done.returncode == 0, done.stderr
    for client in theirs:
        assert await closed(client) == (4401, "This key is not good any more")
    for client in others:
        await lives(client)
        await client.close()


async def test_a_key_whose_time_passes_has_nothing_open_any_more(gateway: Sockets) -> None:
    server, path = gateway
    key, stored = new_key("passing", ["ingest"])
    write(path, [stored])
    client = await speaking(server, key, "passing")
    await lives(client)
    write(path, [msgspec.structs.replace(stored, expires_unix_s=1)])
    assert (await closed(client))[0] == 4401
