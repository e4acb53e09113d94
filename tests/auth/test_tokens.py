"""Tokens are believed by the key that belongs to their algorithm, and by nothing else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge.auth import tokens
from edge.auth.settings import AuthSettings
from edge.auth.tokens import Tokens
from edge.errors import SettingError

SECRET = "a secret of some forty characters, no less"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())


def claims(**more: Any) -> dict[str, Any]:
    return {"exp": time.time() + 600, **more}


def pem(key: Any) -> bytes:
    encoded: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return encoded


@pytest.mark.parametrize("missing", ["exp", "signature", "algorithm"])
async def test_a_token_without_expiry_signature_or_known_algorithm_is_not_believed(
    missing: str,
) -> None:
    believer = Tokens(AuthSettings(jwt_secret=SECRET))
    text = {
        "exp": jwt.encode({"sub": "x"}, SECRET, "HS256"),
        "signature": jwt.encode(claims(), None, "none"),
        "algorithm": jwt.encode(claims(), SECRET * 2, "HS512"),
    }[missing]
    assert await believer.find(text) is None
    assert await believer.find(jwt.encode(claims(), SECRET, "HS256")) is not None


async def test_a_public_key_is_never_taken_for_a_secret(tmp_path: Path) -> None:
    """RFC 8725, 2.1: HS256 with the public key's own text as the secret."""
    path = tmp_path / "public.pem"
    path.write_bytes(pem(RSA))
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "HS256", "typ": "JWT"}, claims())
    ]
    signed = b".".join(parts)
    mac = hmac.new(pem(RSA), signed, hashlib.sha256).digest()
    forged = (signed + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()
    for settings in (
        AuthSettings(jwt_public_key=path),
        AuthSettings(jwt_public_key=path, jwt_secret=SECRET),
    ):
        assert await Tokens(settings).find(forged) is None
        good = jwt.encode(claims(), RSA, "RS256")
        assert await Tokens(settings).find(good) is not None


async def test_audience_and_issuer_count_where_they_are_set() -> None:
    believer = Tokens(
        AuthSettings(jwt_secret=SECRET, jwt_audience="edgescribe", jwt_issuer="office")
    )
    for more, is_good in (
        ({"aud": "edgescribe", "iss": "office"}, True),
        ({"aud": ["x", "edgescribe"], "iss": "office"}, True),
        ({"aud": "x", "iss": "office"}, False),
        ({"aud": "edgescribe", "iss": "x"}, False),
        ({"iss": "office"}, False),
    ):
        found = await believer.find(jwt.encode(claims(**more), SECRET, "HS256"))
        assert (found is not None) == is_good, more


async def test_claims_say_what_a_token_is_good_for() -> None:
    believer = Tokens(AuthSettings(jwt_secret=SECRET))

    async def grant(**more: Any) -> Any:
        return await believer.find(jwt.encode(claims(**more), SECRET, "HS256"))

    assert (await grant()).scopes == {"ingest", "read"}
    assert (await grant(role="listener")).scopes == {"read"}
    assert (await grant(scope="read admin")).scopes == {"read", "admin"}
    assert (await grant(session="m1", max_audio_s=60)).session == "m1"
    assert await grant(scope="everything") is None
    assert await grant(role="king") is None
    assert await grant(scope="read", role="admin") is not None


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(SettingError, match="32 bytes"):
        Tokens(AuthSettings(jwt_secret="short"))


class KeySetServer:
    """Serves a key set, slowly or not at all where it is told to."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self.asked = 0
        self.is_broken = False
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.is_broken:
            return web.Response(status=500)
        made = []
        for kid, key in self.keys.items():
            algorithm = jwt.algorithms.ECAlgorithm
            made.append(
                {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "alg": "ES256"}
            )
        return web.json_response({"keys": made})


@pytest.fixture
async def key_set() -> AsyncIterator[KeySetServer]:
    server = KeySetServer()
    app = web.Application()
    app.router.add_get("/keys", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/keys"
    yield server
    await runner.cleanup()


def signed(key: Any, kid: str) -> str:
    return jwt.encode(claims(), key, "ES256", headers={"kid": kid})


async def test_keys_of_a_set_are_found_by_id_and_followed_when_they_change(
    key_set: KeySetServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_set.keys = {"one": EC}
    believer = Tokens(AuthSettings(jwt_jwks_url=key_set.url))
    assert await believer.find(signed(EC, "one")) is not None
    assert await believer.find(signed(OTHER, "one")) is None
    assert key_set.asked == 1
    key_set.keys = {"two": OTHER}
    assert await believer.find(signed(OTHER, "two")) is None, "asked again too soon"
    assert key_set.asked == 1
    monkeypatch.setattr(tokens, "AGAIN_S", 0.0)
    assert await believer.find(signed(OTHER, "two")) is not None
    assert await believer.find(signed(EC, "one")) is None


async def test_a_key_set_that_is_away_costs_nobody_who_is_known(
    key_set: KeySetServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "AGAIN_S", 0.0)
    monkeypatch.setattr(tokens, "KEPT_S", 0.0)
    key_set.keys = {"one": EC}
    believer = Tokens(AuthSettings(jwt_jwks_url=key_set.url))
    assert await believer.find(signed(EC, "one")) is not None
    key_set.is_broken = True
    assert await believer.find(signed(EC, "one")) is not None
    assert await believer.find(signed(OTHER, "two")) is None


async def test_nobody_waits_long_for_a_key_set_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tokens, "DEADLINE_S", 0.2)
    believer = Tokens(AuthSettings(jwt_jwks_url="http://127.0.0.1:9/keys"))
    began_s = time.monotonic()
    assert await believer.find(signed(EC, "one")) is None
    assert time.monotonic() - began_s < 2
