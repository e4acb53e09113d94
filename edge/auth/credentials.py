"""Where clients put their credentials, and how these are kept from going any further."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, quote, unquote, unquote_plus

import msgspec

MAX_CHARACTERS = 8192
KEY_PROTOCOL = "edgescribe.key."
"""A page offers this with its key behind it, beside the protocol that it speaks."""
PREFIXES = (KEY_PROTOCOL, "openai-insecure-api-key.")
TOKEN_PROTOCOL = "token"
"""Deepgram's pages offer this, and the key as the next one."""
IN_QUERY = ("token", "key")
SCHEMES = ("bearer", "token")


class Presented(msgspec.Struct, frozen=True):
    """A credential as it came; never to be logged."""

    text: str
    is_in_query: bool = False

    def __repr__(self) -> str:
        return "Presented(***)"


def presented(
    headers: Mapping[str, str], query: str, subprotocols: Sequence[str] = ()
) -> Presented | None:
    """The first of: ``Authorization``, ``x-api-key``, a subprotocol, the query; None: nothing.

    Header names are in lower case. What is too long to be a credential counts as a wrong one.
    """
    scheme, _, text = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() in SCHEMES and text.strip():
        return _of(text.strip())
    if key := headers.get("x-api-key", "").strip():
        return _of(key)
    if key := _in_subprotocols(subprotocols):
        return _of(key)
    values = dict(reversed(parse_qsl(query, keep_blank_values=False))) if query else {}
    for name in IN_QUERY:
        if key := values.get(name, ""):
            return _of(key, is_in_query=True)
    return None


def _of(text: str, *, is_in_query: bool = False) -> Presented:
    # Bytes that are no UTF-8 come as surrogates, which are not printable.
    is_one = len(text) <= MAX_CHARACTERS and text.isprintable()
    return Presented(text if is_one else "", is_in_query)


def _in_subprotocols(offered: Sequence[str]) -> str:
    for prefix in PREFIXES:
        for name in offered:
            if name.startswith(prefix):
                return unquote(name[len(prefix) :])
    if TOKEN_PROTOCOL in offered[:-1]:
        return unquote(offered[list(offered).index(TOKEN_PROTOCOL) + 1])
    return ""


def without_credentials(offered: Sequence[str]) -> tuple[str, ...]:
    """The subprotocols that are protocols."""
    kept = [name for name in offered if not name.startswith(PREFIXES)]
    if TOKEN_PROTOCOL in kept[:-1]:
        del kept[kept.index(TOKEN_PROTOCOL) + 1]
    return tuple(kept)


def query_without_credentials(query: str) -> str:
    """The query as it came, but for parameters that are credentials."""
    parts = query.split("&")
    return "&".join(part for part in parts if unquote_plus(part.partition("=")[0]) not in IN_QUERY)


def key_protocol(key: str) -> str:
    """What a page offers; percent-encoded, as a subprotocol is a token of RFC 9110."""
    return KEY_PROTOCOL + quote(key, safe="")
