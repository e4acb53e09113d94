"""The opening handshake of RFC 6455 section 4.2, on header values alone."""

from __future__ import annotations

import base64
import binascii
import hashlib

import msgspec
from sanic.compat import Header

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Fault(msgspec.Struct, frozen=True):
    """Why a request is not a WebSocket handshake: the HTTP status and a line for a person."""

    status: int
    text: str


def find_fault(method: str, http_version: str, headers: Header) -> Fault | None:
    """The first thing that keeps a request from being a version 13 handshake, if there is one."""
    if method != "GET" or http_version != "1.1":
        return Fault(400, "A WebSocket handshake is a GET of HTTP/1.1")
    if "websocket" not in _tokens(headers, "upgrade"):
        return Fault(426, "Upgrade Required: Expected WebSocket connection")
    if "upgrade" not in _tokens(headers, "connection"):
        return Fault(400, "Header Connection does not say: Upgrade")
    if list(headers.getall("sec-websocket-version", ())) != ["13"]:
        return Fault(426, "Header Sec-WebSocket-Version is not 13")
    keys = list(headers.getall("sec-websocket-key", ()))
    if len(keys) != 1 or not _is_key(keys[0]):
        return Fault(400, "Header Sec-WebSocket-Key is not the base64 text of 16 bytes")
    return None


def offered_subprotocols(headers: Header) -> list[str]:
    """The client's subprotocols, its favourite first."""
    values = headers.getall("sec-websocket-protocol", ())
    return [name for value in values for name in map(str.strip, value.split(",")) if name]


def answer(headers: Header, subprotocol: str | None = None) -> bytes:
    """The 101 response to a request without a fault; no extension is ever accepted."""
    (key,) = headers.getall("sec-websocket-key")
    digest = hashlib.sha1(key.strip().encode() + _GUID, usedforsecurity=False).digest()
    lines = [
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest),
    ]
    if subprotocol is not None:
        lines.append(b"Sec-WebSocket-Protocol: " + subprotocol.encode("latin-1"))
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _tokens(headers: Header, name: str) -> set[str]:
    return {
        token.strip().lower() for value in headers.getall(name, ()) for token in value.split(",")
    }


def _is_key(value: str) -> bool:
    try:
        return len(base64.b64decode(value.strip(), validate=True)) == 16
    except (binascii.Error, ValueError):
        return False
