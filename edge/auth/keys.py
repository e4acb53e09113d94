"""API keys: random, shown once, kept as hashes, read again when their file changes.

A key is ``esk_<id>_<secret>``; the secret has 256 bits, so that its SHA-256 cannot be searched and
no slow hash is needed. The file is JSON, written whole and renamed, readable for its owner only.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from edge.auth.grants import USUAL, Allowance, Grant, parse_scopes
from edge.errors import SettingError
from edge.logs import get_logger

LOOK_EVERY_S = 1.0
_FORM = re.compile(r"esk_([0-9a-z]{12})_([0-9A-Za-z_-]{43})")

_log = get_logger("edge.auth.keys")


class StoredKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A key as it is kept."""

    id: str
    name: str
    sha256: str
    """Of the whole key, in hexadecimal."""
    scopes: list[str]
    created_unix_s: int
    expires_unix_s: int = 0
    """0: never."""
    session: str | None = None
    """The one session it is good for."""
    allowance: Allowance = Allowance()

    def is_over(self, now_unix_s: float) -> bool:
        """Whether its time has passed."""
        return 0 < self.expires_unix_s <= now_unix_s


class _Kept(msgspec.Struct, frozen=True):
    keys: list[StoredKey]


_decode = msgspec.json.Decoder(_Kept).decode


def new_key(
    name: str,
    scopes: Iterable[str],
    *,
    expires_unix_s: int = 0,
    session: str | None = None,
    allowance: Allowance | None = None,
) -> tuple[str, StoredKey]:
    """A key, to be shown once, and what is kept of it."""
    id = "".join(secrets.choice("0123456789abcdefghijklmnopqrstuvwxyz") for _ in range(12))
    key = f"esk_{id}_{secrets.token_urlsafe(32)}"
    return key, StoredKey(
        id=id,
        name=name,
        sha256=digest(key),
        scopes=sorted(scopes),
        created_unix_s=int(time.time()),
        expires_unix_s=expires_unix_s,
        session=session,
        allowance=allowance or Allowance(),
    )


def digest(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def read(path: Path) -> list[StoredKey]:
    """The keys of a file, none if there is no file; raises ``SettingError``."""
    try:
        return _decode(path.read_bytes()).keys
    except FileNotFoundError:
        return []
    except (OSError, msgspec.DecodeError) as error:
        raise SettingError("keys_file", str(path), f"cannot be read: {error}") from error


def write(path: Path, keys: list[StoredKey]) -> None:
    """Replace a file as a whole; raises ``SettingError``."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(_Kept(keys)), indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise SettingError("keys_file", str(path), f"cannot be written: {error}") from error


class Keys:
    """The keys of a gateway: those of the file as it is now, and those of the settings."""

    def __init__(self, path: Path, given: Iterable[str] = ()) -> None:
        """Raises ``SettingError`` for a file or a key that cannot be used."""
        self._path = path
        self._given = [_given(number, text) for number, text in enumerate(given, 1)]
        self._stamp: tuple[int, int, int] | None = None
        self._by_id: dict[str, StoredKey] = {}
        self._look_at_s = 0.0
        self._look(first=True)

    @property
    def any(self) -> bool:
        """Whether there is a key at all."""
        return bool(self._given or self._by_id)

    def find(self, key: str, now_unix_s: float) -> Grant | None:
        """What a key allows; None if it is not known, or not any more."""
        self._look()
        if match := _FORM.fullmatch(key):
            kept = self._by_id.get(match[1])
            shown = digest(key)
            if kept is not None and hmac.compare_digest(kept.sha256, shown):
                return None if kept.is_over(now_unix_s) else _grant(kept)
        shown = digest(key)
        found = None
        for known, grant in self._given:
            if hmac.compare_digest(known, shown):
                found = grant
        return found

    def is_good(self, id: str, now_unix_s: float) -> bool:
        """Whether a stored key still is, as ``Grant.key_id`` names it."""
        self._look()
        kept = self._by_id.get(id)
        return kept is not None and not kept.is_over(now_unix_s)

    def _look(self, *, first: bool = False) -> None:
        """Read the file again if it is another one; one that cannot be read changes nothing."""
        now_s = time.monotonic()
        if not first and now_s < self._look_at_s:
            return
        self._look_at_s = now_s + LOOK_EVERY_S
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        except FileNotFoundError:
            stamp = None
        except OSError:
            return
        if stamp == self._stamp and not first:
            return
        try:
            found = read(self._path)
        except SettingError as error:
            if first:
                raise
            _log.error("the keys cannot be read; the old ones stay", reason=str(error))
            return
        self._stamp = stamp
        self._by_id = {key.id: key for key in found}
        if not first:
            _log.info("keys were read again", keys=len(found))


def _grant(key: StoredKey) -> Grant:
    return Grant(
        name=key.name,
        scopes=frozenset(key.scopes),
        session=key.session,
        allowance=key.allowance,
        key_id=key.id,
    )


def _given(number: int, text: str) -> tuple[str, Grant]:
    key, separator, scopes = text.rpartition(":")
    try:
        if not separator:
            key, granted = scopes, USUAL
        else:
            granted = parse_scopes(scopes)
        if len(key) < 16:
            raise ValueError("a key has 16 characters or more")
    except ValueError as error:
        raise SettingError("api_keys", "***", f"entry {number}: {error}") from error
    return digest(key), Grant(name=f"settings-{number}", scopes=granted)
