"""Handshake headers of any kind: a fault with words for a person, or the right answer."""

from __future__ import annotations

import base64
import hashlib

from hypothesis import example, given
from hypothesis import strategies as st
from sanic.compat import Header

from edge.transport import handshake

names = st.sampled_from([
    "upgrade", "connection", "sec-websocket-key", "sec-websocket-version",
    "sec-websocket-protocol", "sec-websocket-extensions",
])  # fmt: skip
values = st.one_of(
    st.sampled_from(["websocket", "Upgrade", "keep-alive, UPGRADE", "13", "8", "", ",", " , ,"]),
    st.binary(min_size=14, max_size=18).map(lambda key: base64.b64encode(key).decode()),
    # What Sanic hands over: bytes of a head that are not UTF-8 become surrogates.
    st.binary(max_size=30).map(lambda raw: raw.decode(errors="surrogateescape")),
)
headers = st.lists(st.tuples(names, values), max_size=8)


def accepted(pairs: list[tuple[str, str]]) -> bool:
    """RFC 6455 section 4.2.1, said once more in other words."""

    def all_of(name: str) -> list[str]:
        return [value for each, value in pairs if each == name]

    def has_token(name: str, token: str) -> bool:
        return any(
            part.strip().lower() == token for value in all_of(name) for part in value.split(",")
        )

    keys = all_of("sec-websocket-key")
    return (
        has_token("upgrade", "websocket")
        and has_token("connection", "upgrade")
        and all_of("sec-websocket-version") == ["13"]
        and len(keys) == 1
        and is_base64_of_16_bytes(keys[0].strip())
    )


def is_base64_of_16_bytes(text: str) -> bool:
    if len(text) != 24 or not text.endswith("==") or not text.isascii():
        return False
    return set(text[:22]) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")


GOOD = [
    ("upgrade", "websocket"),
    ("connection", "keep-alive, Upgrade"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
]


@given(
    st.just(GOOD) | headers | st.tuples(st.permutations(GOOD), headers).map(lambda p: p[0] + p[1])
)
@example([*GOOD, ("sec-websocket-extensions", "permessage-deflate")])
def test_headers_are_judged_as_the_rfc_says_and_always_in_words(
    pairs: list[tuple[str, str]],
) -> None:
    given_headers = Header(pairs)
    fault = handshake.find_fault("GET", "1.1", given_headers)
    assert (fault is None) == accepted(pairs)
    if fault is not None:
        assert fault.status in (400, 426)
        assert fault.text
        return
    answer = handshake.answer(given_headers)
    (key,) = (value.strip() for name, value in pairs if name == "sec-websocket-key")
    digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    assert b"\r\nSec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n" in answer
    assert answer.count(b"\r\n\r\n") == 1
    assert b"xtensions" not in answer


@given(headers)
def test_subprotocols_are_whole_names_in_the_clients_order(pairs: list[tuple[str, str]]) -> None:
    offered = handshake.offered_subprotocols(Header(pairs))
    assert all(name and name == name.strip() and "," not in name for name in offered)
