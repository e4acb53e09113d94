"""Settings of authentication: where keys come from, which tokens are believed, what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from edge.option import option


class AuthSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Authentication is on as soon as there is a key or a way to believe tokens. Without, the
    gateway serves loopback addresses only, unless it is told to be insecure."""

    insecure: Annotated[bool, option("Serve other machines without authentication")] = False
    """For a gateway behind something that authenticates."""
    keys_file: Annotated[Path | None, option("File with hashed API keys")] = None
    """Default: ``keys.json`` in the data directory; read again when it changes."""
    api_keys: Annotated[
        tuple[str, ...], option("API keys, each with its scopes: KEY:ingest+read", secret=True)
    ] = ()
    """For containers; without scopes a key has ``ingest`` and ``read``."""
    room_secret: Annotated[str, option("Secret that room tokens are made with", secret=True)] = ""
    """``edgescribe keys room SESSION`` makes one."""
    jwt_secret: Annotated[str, option("Secret of HS256 tokens", secret=True)] = ""
    """At least 32 bytes."""
    jwt_public_key: Annotated[Path | None, option("PEM file for RS256 and ES256 tokens")] = None
    """A public key."""
    jwt_jwks_url: Annotated[str, option("URL of the key set for RS256 and ES256 tokens")] = ""
    """Keys are chosen by ``kid`` and kept for ten minutes."""
    jwt_audience: Annotated[str, option("Audience that tokens must name")] = ""
    """Empty: not looked at."""
    jwt_issuer: Annotated[str, option("Issuer that tokens must name")] = ""
    """Empty: not looked at."""
    failed_logins_per_minute: Annotated[
        int, option("Wrong credentials that one address may show in a minute", ge=1, le=10_000)
    ] = 30
    """Then 429, until a minute has passed; those that are known go on."""
    trusted_proxies: Annotated[
        tuple[str, ...], option("Addresses and networks of proxies that say whom they pass on")
    ] = ()
    """Wrong credentials count under the address in their ``X-Forwarded-For``."""
    allowed_origins: Annotated[
        tuple[str, ...], option("Origins whose pages may use the gateway; * is all")
    ] = ()
    """For CORS, and for the ``Origin`` of WebSockets. Empty: no CORS, sockets from everywhere."""
    key_max_connections: Annotated[
        int, option("WebSockets that one key may have open in a worker; 0: any number", ge=0)
    ] = 0
    """A key's own limit wins; so for those below."""
    key_max_tracks: Annotated[
        int, option("Tracks that one key may have open in a worker; 0: any number", ge=0)
    ] = 0
    """Further ones are refused, with 4029 where that ends the connection."""
    key_requests_per_s: Annotated[
        int, option("HTTP requests a second of one key in a worker; 0: any number", ge=0)
    ] = 0
    """Two seconds' worth may come at once; then 429."""
    key_audio_s_per_day: Annotated[
        int, option("Seconds of audio a day (UTC) of one key in all workers; 0: any number", ge=0)
    ] = 0
    """Counted by all nodes of a store, to within ten seconds."""
