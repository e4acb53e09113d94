"""JSON Web Tokens (RFC 7519, RFC 8725): HS256 by a secret, RS256 and ES256 by a public key or a key
set (RFC 7517).

The algorithm decides which key is tried, never the token alone: a public key is never taken for a
secret. Expiry is required. Claims: ``scope`` (or ``scopes``), ``session``, ``role`` (listener,
speaker, admin) and ``max_audio_s``.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from edge.auth.addresses import is_own_machine
from edge.auth.grants import SCOPES, USUAL, Grant
from edge.auth.settings import AuthSettings
from edge.errors import SettingError
from edge.logs import Repeats, get_logger

if TYPE_CHECKING:
    from jwt import PyJWK

LEEWAY_S = 10.0
KEPT_S = 600.0
"""A key set is asked for again after so long."""
AGAIN_S = 30.0
"""It is asked for no more often than this, whatever key ids tokens name."""
DEADLINE_S = 5.0
MAX_SET_BYTES = 256 * 1024
SHORTEST_SECRET = 32
PUBLIC = ("RS256", "ES256")
UNREADABLE = (AttributeError, OverflowError, RecursionError, TypeError, ValueError)
"""What PyJWT raises beside its own for JSON of another shape and keys of another kind."""
ROLES: dict[str, frozenset[str]] = {
    "listener": frozenset(("read",)),
    "speaker": USUAL,
    "admin": frozenset(("admin",)),
}

_log = get_logger("edge.auth.tokens")


class Claims(msgspec.Struct, frozen=True):
    """What counts of a token's claims beside those that are checked with its signature."""

    exp: float
    sub: str = ""
    scope: str = ""
    scopes: tuple[str, ...] = ()
    session: str | None = None
    role: str = ""
    max_audio_s: float | None = None


class Tokens:
    """Believes tokens as the settings have it."""

    def __init__(self, settings: AuthSettings) -> None:
        """Raises ``SettingError``."""
        self._settings = settings
        self._public: Any = None
        self._set = KeySet(_checked(settings.jwt_jwks_url)) if settings.jwt_jwks_url else None
        if settings.jwt_secret and len(settings.jwt_secret.encode()) < SHORTEST_SECRET:
            raise SettingError("jwt_secret", "***", f"it has {SHORTEST_SECRET} bytes or more")
        if settings.jwt_public_key is not None:
            self._public = _public_key(settings)

    @property
    def any(self) -> bool:
        """Whether there is a way to believe a token."""
        return bool(self._settings.jwt_secret or self._public is not None or self._set)

    async def stop(self) -> None:
        """Ask for no key set any more."""
        if self._set is not None:
            await self._set.stop()

    async def find(self, text: str) -> Grant | None:
        """What a token allows; None if it cannot be believed, or not any more."""
        if not self.any or text.count(".") != 2:
            return None
        import jwt

        try:
            header = jwt.get_unverified_header(text)
            key, algorithm = await self._key(header)
            if key is None:
                return None
            claims = jwt.decode(
                text,
                key,
                algorithms=[algorithm],
                audience=self._settings.jwt_audience or None,
                issuer=self._settings.jwt_issuer or None,
                leeway=LEEWAY_S,
                options={
                    "require": ["exp"],
                    "verify_aud": bool(self._settings.jwt_audience),
                },
            )
            return _grant(msgspec.convert(claims, Claims, strict=False), text)
        except (jwt.PyJWTError, msgspec.ValidationError, *UNREADABLE):
            return None

    async def _key(self, header: dict[str, Any]) -> tuple[Any, str]:
        """The key that a token must have been signed with, and how; None: there is none."""
        algorithm = header.get("alg")
        if algorithm == "HS256":
            return self._settings.jwt_secret or None, algorithm
        if algorithm not in PUBLIC:
            return None, ""
        if self._set is not None:
            key = await self._set.find(str(header.get("kid", "")), algorithm)
            if key is not None:
                return key, algorithm
        return self._public, algorithm


def _grant(claims: Claims, text: str) -> Grant | None:
    scopes = frozenset(claims.scopes or claims.scope.split()) or USUAL
    if claims.role:
        allowed = ROLES.get(claims.role)
        if allowed is None:
            return None
        scopes = allowed if claims.role == "admin" else scopes & allowed
    if not scopes or not scopes <= SCOPES:
        return None
    name = f"token:{claims.sub}" if claims.sub else "token"
    is_bounded = claims.max_audio_s is not None
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Grant(
        name=name,
        scopes=scopes,
        session=claims.session,
        audio_s=claims.max_audio_s,
        meter=f"{name}#{fingerprint}" if is_bounded else "",
        expires_unix_s=claims.exp,
    )


def _checked(url: str) -> str:
    """The URL, unless others could answer in its place: who writes the set makes tokens."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        parts, host = urlsplit(""), ""
    if host and (parts.scheme == "https" or (parts.scheme == "http" and is_own_machine(host))):
        return url
    raise SettingError("jwt_jwks_url", url, "is an https URL, or an http one of this machine")


def _public_key(settings: AuthSettings) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    path = settings.jwt_public_key
    assert path is not None
    try:
        return load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise SettingError("jwt_public_key", str(path), f"is no public key: {error}") from error


class KeySet:
    """The keys at a URL, kept for a while; an old set is better than none."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: dict[str, PyJWK] = {}
        self._read_s = -KEPT_S
        self._asked_s = -AGAIN_S
        self._asking: asyncio.Task[None] | None = None
        self._repeats = Repeats(_log)

    async def stop(self) -> None:
        """Give up an answer that is awaited."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def find(self, kid: str, algorithm: str) -> PyJWK | None:
        """The key of this id for this algorithm; an unknown id may make the set be read again."""
        now_s = time.monotonic()
        is_old = now_s - self._read_s > KEPT_S
        if (is_old or kid not in self._keys) and now_s - self._asked_s >= AGAIN_S:
            self._asked_s = now_s
            self._asking = asyncio.get_running_loop().create_task(self._read())
        if self._asking is not None and (is_old or kid not in self._keys):
            await asyncio.shield(self._asking)
        key = self._keys.get(kid)
        return key if key is not None and key.algorithm_name == algorithm else None

    async def _read(self) -> None:
        import aiohttp
        import jwt

        try:
            timeout = aiohttp.ClientTimeout(total=DEADLINE_S)
            async with (
                aiohttp.ClientSession(timeout=timeout) as client,
                client.get(self._url, allow_redirects=False) as answer,
            ):
                answer.raise_for_status()
                body = bytearray()
                async for part in answer.content.iter_any():
                    body += part
                    if len(body) > MAX_SET_BYTES:
                        raise ValueError(f"a key set has at most {MAX_SET_BYTES} bytes")
            found = jwt.PyJWKSet.from_json(body.decode())
        except (aiohttp.ClientError, OSError, jwt.PyJWTError, *UNREADABLE) as error:
            self._repeats.note("the key set cannot be read", "error", reason=type(error).__name__)
            return
        self._keys = {key.key_id or "": key for key in found.keys}
        self._read_s = time.monotonic()
