"""Every endpoint and socket with every kind of credential, at a running gateway."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from edge.auth.rooms import room_token
from edge.auth.rules import RULES, need_of_request
from tests.support.server import Server, running

SECRET = "a secret of some forty characters, no less"
ROOM_SECRET = "another secret, of rooms"
INGEST, READ, ADMIN = ("ingest-key-0123456789", "read-key-0123456789", "admin-key-0123456789")
MINE, OTHERS = "mine", "others"
BODIES: dict[str, bytes] = {"POST": b"{}"}
PUBLIC = ("/health", "/ready", "/edgescribe.js", "/openapi.json")
NEVER_401 = {"/v1/audio/ws/mine", "/v1/audio/ws/mine/teacher"}
"""A recorder may show its key in its first message instead."""


def token(**claims: Any) -> str:
    return jwt.encode({"exp": time.time() + 600, **claims}, SECRET, "HS256")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    keys = f"{INGEST}:ingest,{READ}:read,{ADMIN}:admin"
    with running(
        "--workers",
        "1",
        "--set",
        "enable_dummy_provider=true",
        "--set",
        "providers_priority=dummy",
        environment={
            "EDGESCRIBE_API_KEYS": keys,
            "EDGESCRIBE_JWT_SECRET": SECRET,
            "EDGESCRIBE_ROOM_SECRET": ROOM_SECRET,
            "EDGESCRIBE_FAILED_LOGINS_PER_MINUTE": "10000",
        },
    ) as server:
        yield server


def ask(server: Server, method: str, path: str, key: str | None) -> int:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    try:
        connection.request(method, path, BODIES.get(method), headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status == 401:
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert json.loads(body)["code"] == "unauthorized"
        return answer.status
    finally:
        connection.close()


def operations(server: Server) -> list[tuple[str, str]]:
    document = json.loads(server.get("/openapi.json").body)
    described = [
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    ]
    others = [(method, path) for method, path, _ in RULES if (method, path) not in described]
    return [*described, *others]


def test_every_endpoint_that_is_described_has_a_rule(server: Server) -> None:
    document = json.loads(server.get("/openapi.json").body)
    known = {(method, path) for method, path, _ in RULES}
    described = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    assert described - known - {("GET", path) for path in PUBLIC} == set()


def credentials(
    scopes: tuple[str, ...], *, is_of_session: bool
) -> dict[str, tuple[str | None, int]]:
    """What is shown, and the status it gets: 0 is anything but a refusal."""
    scope = scopes[0]
    right = {"ingest": INGEST, "read": READ, "admin": ADMIN}[scope]
    wrong = READ if scope != "read" else INGEST
    table: dict[str, tuple[str | None, int]] = {
        "no key": (None, 401),
        "wrong key": ("no-such-key-0123456789", 401),
        "expired": (token(exp=time.time() - 60, scope=scope), 401),
        "wrong scope": (wrong, 403),
        "other session's token": (token(scope=scope, session=OTHERS), 403),
        "right": (right, 0),
        "right token": (token(scope=scope), 0),
        "admin": (ADMIN, 0),
    }
    if is_of_session:
        table["this session's token"] = (token(scope=scope, session=MINE), 0)
    return table


def test_each_endpoint_answers_each_credential_as_documented(server: Server) -> None:
    asked = 0
    for method, template in operations(server):
        if template in PUBLIC:
            continue
        path = template.replace("{session}", MINE)
        need = need_of_request(method, path)
        for name, (key, wanted) in credentials(
            need.scopes, is_of_session=need.is_of_session
        ).items():
            status = ask(server, method, path, key)
            asked += 1
            where = f"{method} {path} with {name}: {status}"
            assert (status == wanted) if wanted else status not in (401, 403, 429), where
    assert asked >= 60


def test_what_everybody_may_see_takes_no_key(server: Server) -> None:
    for path in PUBLIC:
        assert server.get(path).status == 200, path


def test_paths_that_nobody_knows_are_not_told_from_others(server: Server) -> None:
    assert ask(server, "GET", "/v1/secret-thing", None) == 401
    assert ask(server, "GET", "/v1/secret-thing", READ) == 403
    assert ask(server, "POST", "/health", None) == 401


SOCKETS = (
    ("/transcribe?sendBack=true&sessionId=mine", None),
    ("/listen?session=mine", None),
    ("/listen?session=mine", "edge.session.v1"),
    ("/v1/audio/ws/mine", None),
    ("/v1/audio/ws/mine/teacher", None),
)


async def upgrade(server: Server, path: str, protocol: str | None, key: str | None) -> int:
    """The status of a handshake; 101 is one that worked."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    protocols: Any = [protocol] if protocol else None
    try:
        async with connect(
            f"ws://{server.address}{path}", additional_headers=headers, subprotocols=protocols
        ):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


@pytest.mark.parametrize(("path", "protocol"), SOCKETS)
async def test_each_socket_answers_each_credential_as_documented(
    server: Server, path: str, protocol: str | None
) -> None:
    is_followed = path.startswith("/listen")
    for name, (key, wanted) in credentials(("ingest",), is_of_session=True).items():
        status = await upgrade(server, path, protocol, key)
        if name == "wrong scope" and is_followed and protocol:
            wanted = 0  # It may listen; that it may not speak is told after its hello.
        if name == "no key" and path in NEVER_401:
            wanted = 0
        assert status == (wanted or 101), f"{path} with {name}: {status}"


async def test_a_room_token_is_good_for_its_room_alone(server: Server) -> None:
    url = f"ws://{server.address}/transcribe?sendBack=true"
    good = room_token(ROOM_SECRET, MINE)
    async with connect(f"{url}&sessionId={MINE}&token={good}"):
        pass
    for query in (f"sessionId={OTHERS}&token={good}", f"token={good}"):
        with pytest.raises(InvalidStatus, match="401"):
            async with connect(f"{url}&{query}"):
                pass


async def test_a_key_that_may_look_inside_is_not_taken_from_a_url(server: Server) -> None:
    url = f"ws://{server.address}/transcribe?sendBack=true&sessionId={MINE}"
    async with connect(f"{url}&key={INGEST}"):
        pass
    with pytest.raises(InvalidStatus, match="401"):
        async with connect(f"{url}&key={ADMIN}"):
            pass
    with pytest.raises(InvalidStatus, match="401"):
        async with connect(f"{url}&token={token(exp=time.time() + 86400)}"):
            pass


@pytest.mark.parametrize(
    ("offered", "confirmed"),
    [
        (["edge.session.v1", f"edgescribe.key.{INGEST}"], "edge.session.v1"),
        (["edgescribe", f"edgescribe.key.{INGEST}"], "edgescribe"),
    ],
)
async def test_a_page_shows_its_key_beside_its_protocol_and_it_is_not_echoed(
    server: Server, offered: list[Any], confirmed: str
) -> None:
    url = f"ws://{server.address}/listen?session={MINE}"
    async with connect(url, subprotocols=offered) as client:
        assert client.subprotocol == confirmed


async def test_who_may_only_read_cannot_speak(server: Server) -> None:
    url = f"ws://{server.address}/listen?session={MINE}"
    headers = {"x-api-key": READ}
    protocols: Any = ["edge.session.v1"]
    hello = {"type": "hello", "role": "speaker", "audio": {"encoding": "pcm16", "rate": 16000}}
    async with connect(url, additional_headers=headers, subprotocols=protocols) as client:
        await client.send(json.dumps({**hello, "audio": {**hello["audio"], "channels": 1}}))  # type: ignore[dict-item]
        assert json.loads(await client.recv())["code"] == "forbidden"
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 4003
    async with connect(url, additional_headers=headers, subprotocols=protocols) as client:
        await client.send(json.dumps({"type": "hello", "role": "listener"}))
        assert json.loads(await client.recv())["type"] == "welcome"


async def test_a_recorder_shows_its_key_in_its_first_message(server: Server) -> None:
    url = f"ws://{server.address}/v1/audio/ws/first-frame/teacher"
    async with connect(url) as client:
        await client.send(json.dumps({"type": "auth", "key": INGEST}))
        assert json.loads(await client.recv()) == {"type": "auth_ok"}
        await client.send(json.dumps({"type": "ping", "ts": 1}))
        async with asyncio.timeout(5):
            while json.loads(await client.recv())["type"] != "pong":
                pass
    for first in ({"type": "auth", "key": "wrong-key-0123456789"}, {"type": "ping", "ts": 1}):
        async with connect(url) as client:
            await client.send(json.dumps(first))
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == 4401


def test_no_secret_is_in_the_log(server: Server) -> None:
    said = server.log
    for secret in (INGEST, READ, ADMIN, SECRET, ROOM_SECRET, room_token(ROOM_SECRET, MINE)):
        assert secret not in said
    assert "eyJ" not in said
