"""What is made up to get past the guard, or to break it: forged tokens, odd bytes, two sessions."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from edge.auth.credentials import query_without_credentials
from tests.support.server import QUIET_RECOGNIZER, Server, running, wait_until

SECRET = "a secret of forty characters, or so it is"
EXPIRES = {"exp": 4_000_000_000}
SESSION_V1 = [Subprotocol("edge.session.v1")]


@pytest.fixture(scope="module")
def public_key() -> bytes:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture(scope="module")
def server(public_key: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("keys") / "public.pem"
    path.write_bytes(public_key)
    environment = {
        **QUIET_RECOGNIZER,
        "EDGESCRIBE_INSECURE": "false",
        "EDGESCRIBE_JWT_SECRET": SECRET,
        "EDGESCRIBE_JWT_PUBLIC_KEY": str(path),
        "EDGESCRIBE_FAILED_LOGINS_PER_MINUTE": "10000",
    }
    with running("--workers", "1", environment=environment) as started:
        yield started
        assert "Traceback" not in started.log


def token(**claims: Any) -> str:
    return jwt.encode({**EXPIRES, **claims}, SECRET, "HS256")


def part(value: Any) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def signed(header: Mapping[str, Any], claims: Any, key: bytes) -> str:
    """A token with an HMAC of a key that is none."""
    text = f"{part(header)}.{part(claims)}"
    return f"{text}.{part(hmac.new(key, text.encode(), hashlib.sha256).digest())}"


def status(server: Server, credential: str) -> int:
    headers = {"Authorization": f"Bearer {credential}"}
    return server.get("/v1/sessions", headers=headers).status


def test_a_public_key_is_no_secret(server: Server, public_key: bytes) -> None:
    claims = {**EXPIRES, "scope": "admin"}
    assert status(server, signed({"alg": "HS256"}, claims, public_key)) == 401
    assert status(server, signed({"alg": "RS256"}, claims, public_key)) == 401
    assert status(server, token(scope="read")) == 200


def test_a_token_signed_by_nobody_or_for_another_kind_of_key_is_not_believed(
    server: Server,
) -> None:
    assert status(server, jwt.encode(EXPIRES, None, "none")) == 401
    elliptic = ec.generate_private_key(ec.SECP256R1())
    assert status(server, jwt.encode(EXPIRES, elliptic, "ES256")) == 401
    assert status(server, jwt.encode(EXPIRES, SECRET * 2, "HS512")) == 401
    assert status(server, jwt.encode({"scope": "read"}, SECRET, "HS256")) == 401


@pytest.mark.parametrize(
    "header",
    [5, [], "HS256", {}, {"alg": ["HS256"]}, {"alg": {}}, {"alg": "RS256", "kid": 5}, b"[" * 5000],
)
def test_any_json_may_be_the_header_of_a_token(server: Server, header: Any) -> None:
    assert status(server, f"{part(header)}.{part(EXPIRES)}.AAAA") == 401


@pytest.mark.parametrize("claims", [5, [], "x", {"exp": "soon"}, {"exp": None}, b'{"exp":1e999}'])
def test_claims_of_another_shape_are_not_believed_whoever_signed_them(
    server: Server, claims: Any
) -> None:
    assert status(server, signed({"alg": "HS256"}, claims, SECRET.encode())) == 401


def test_bytes_that_are_no_text_are_a_wrong_credential(server: Server) -> None:
    for field in (b"Authorization: Bearer \xff\xfe", b"X-Api-Key: \xc3\x28"):
        request = b"GET /v1/sessions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%b\r\n\r\n" % field
        assert server.exchange(request).startswith(b"HTTP/1.1 401 "), field


@pytest.mark.parametrize(
    "target",
    [
        "/console/../v1/sessions",
        "/console/%2e%2e/v1/sessions",
        "/health/../v1/sessions",
        "//v1/sessions",
        "/v1/sessions/",
        "/v1/./sessions",
        "/metrics/",
    ],
)
def test_no_spelling_of_a_path_leads_around_the_guard(server: Server, target: str) -> None:
    answer = server.get(target)
    assert answer.status in (401, 404, 426)
    assert b"sessions" not in answer.body


def test_who_may_follow_one_session_follows_no_other(server: Server) -> None:
    """Nor by naming both, whichever of the parameters counts for the protocol."""
    headers = {"Authorization": f"Bearer {token(scope='read', session='mine')}"}
    base = f"ws://{server.address}/listen"
    with connect(f"{base}?session=mine", subprotocols=SESSION_V1, additional_headers=headers) as ws:
        ws.send('{"type":"hello","role":"listener"}')
        assert json.loads(ws.recv(timeout=5))["session"] == "mine"
    for query in (
        "session=other",
        "sessionId=mine&session=other",
        "session=other&sessionId=mine",
        "session=other&session=mine",
        "session=&sessionId=mine&session=other",
        "",
    ):
        try:
            with connect(
                f"{base}?{query}", subprotocols=SESSION_V1, additional_headers=headers
            ) as ws:
                ws.send('{"type":"hello","role":"listener"}')
                assert json.loads(ws.recv(timeout=5))["session"] != "other", query
        except InvalidStatus as refused:
            assert refused.response.status_code == 403, query


def test_a_credential_in_a_query_goes_no_further_however_it_is_spelt() -> None:
    assert query_without_credentials("a=1&token=x&b=2&key=y") == "a=1&b=2"
    assert query_without_credentials("to%6ben=x&b=2&k%65y=y&token") == "b=2"
    assert query_without_credentials("tokens=1&monkey=2") == "tokens=1&monkey=2"


def test_a_token_that_is_over_is_not_believed(server: Server) -> None:
    """Ten seconds are allowed for clocks that differ."""
    assert status(server, token(exp=time.time() - 60)) == 401


def test_nothing_of_a_credential_is_in_the_log(server: Server) -> None:
    shown = token(scope="read", sub="a-name")
    server.get(f"/v1/sessions?token={shown}")
    server.get(f"/nowhere?key={shown}", headers={"X-Api-Key": "esk_wrong_and_long_enough"})
    log = Path(server.folder / "stderr").read_text()
    assert shown not in log and "esk_wrong" not in log and SECRET not in log


def test_connections_that_show_nothing_are_bounded_and_leave_nothing(server: Server) -> None:
    """They cannot take a worker's memory: past 500 they are refused until some have gone."""
    url = f"ws://{server.address}/v1/audio/ws/stranger/teacher"
    handshake = (
        b"GET /v1/audio/ws/stranger/teacher HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    with ExitStack() as strangers:
        for _ in range(500):
            address = (server.host, server.port)
            stranger = strangers.enter_context(socket.create_connection(address, timeout=5))
            stranger.sendall(handshake)
            assert stranger.recv(4096).startswith(b"HTTP/1.1 101 ")
        with pytest.raises(InvalidStatus, match="503"), connect(url):
            pass
        headers = {"Authorization": f"Bearer {token(scope='ingest')}"}
        with connect(url, additional_headers=headers):
            pass

    def is_let_in() -> bool:
        try:
            with connect(url) as ws:
                ws.send(json.dumps({"type": "auth", "key": token(scope="ingest")}))
                return ws.recv(timeout=5) == '{"type":"auth_ok"}'
        except InvalidStatus:
            return False

    wait_until(is_let_in, "room for one that says who it is")
