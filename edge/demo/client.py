"""The client side of ``/transcribe``: addresses, connecting, what comes back, one-line errors."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
)

from edge.errors import EdgescribeError

CONNECT_TIMEOUT_S = 15.0
WEBSOCKET_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class Unreachable(EdgescribeError):
    """The gateway cannot be connected to; the message says where and why."""


class Disconnected(EdgescribeError):
    """The gateway closed the connection before the client was done."""


class Alternative(msgspec.Struct, frozen=True):
    """One reading of what was said."""

    text: str = ""
    confidence: float | None = None


class Participant(msgspec.Struct, frozen=True):
    """Who said it."""

    id: str = ""
    tag: str | None = None


class ServerMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Any message of a gateway, ours or another; members of other events keep their defaults."""

    event: str = ""
    id: int | float | str | None = None
    """Of a pong."""
    transcript: list[Alternative] = []
    is_interim: bool = False
    message_id: str | None = None
    participant: Participant = Participant()
    start_ms: int | float | None = None
    end_ms: int | float | None = None
    code: str | int | None = None
    message: str | None = None
    """With ``code`` and ``tag``, of an error event."""
    tag: str | None = None

    @property
    def is_result(self) -> bool:
        return self.event == "transcription-result"

    @property
    def text(self) -> str:
        return " ".join(reading.text for reading in self.transcript).strip()

    @property
    def confidence(self) -> float | None:
        return self.transcript[0].confidence if self.transcript else None

    @property
    def speaker(self) -> str:
        """The participant's tag, or the id where a gateway sends no tag."""
        return self.participant.tag or self.participant.id


_decoder = msgspec.json.Decoder(ServerMessage)


def decode(message: str | bytes) -> ServerMessage | None:
    """A message of the gateway, or None for what is not an object of a known shape."""
    try:
        return _decoder.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def transcribe_url(address: str, defaults: Mapping[str, str]) -> str:
    """The WebSocket address for a base or full URL of a gateway.

    ``http`` becomes ``ws``; without a path ``/transcribe`` is meant; ``defaults`` are added to the
    query where it does not name them, and a ``sessionId`` of our own where it has none.
    Raises ``Unreachable`` for what is not such a URL.
    """
    problem = Unreachable(
        f"{address!r} is not a gateway's address; use http://HOST:PORT"
        " or ws://HOST:PORT/transcribe?sessionId=NAME"
    )
    try:
        parts = urlsplit(address if "://" in address else f"ws://{address}")
        scheme, host, _ = WEBSOCKET_SCHEMES.get(parts.scheme), parts.hostname, parts.port
    except ValueError:
        raise problem from None
    if scheme is None or not host or any(c.isspace() for c in address):
        raise problem
    query = parse_qsl(parts.query, keep_blank_values=True)
    given = {name for name, _ in query}
    session = {"sessionId": f"edgescribe-{secrets.token_hex(6)}"}
    query += [item for item in {**session, **defaults}.items() if item[0] not in given]
    path = parts.path if parts.path.strip("/") else "/transcribe"
    return urlunsplit((scheme, parts.netloc, path, urlencode(query), ""))


@asynccontextmanager
async def connected(
    url: str, headers: Mapping[str, str] | None = None, timeout_s: float = CONNECT_TIMEOUT_S
) -> AsyncIterator[ClientConnection]:
    """Connect to a gateway for the length of the block.

    The bridge's own pings replace those of WebSocket, as in production. Raises ``Unreachable`` for
    whatever keeps it from opening, ``Disconnected`` when the peer closes within the block.
    """
    parts = urlsplit(url)
    where = f"{parts.scheme}://{parts.netloc}{parts.path}"
    try:
        socket = await connect(
            url,
            additional_headers=headers,
            compression=None,
            open_timeout=timeout_s,
            ping_interval=None,
            close_timeout=5,
            max_queue=None,
            proxy=None if parts.hostname in LOOPBACK else True,
        )
    except TimeoutError:
        raise Unreachable(f"{where} did not answer within {timeout_s:g} s") from None
    except InvalidStatus as error:
        response = error.response
        body = response.body.decode(errors="replace").strip()[:200]
        said = body or response.reason_phrase
        raise Unreachable(f"{where} refused with status {response.status_code}: {said}") from None
    except (InvalidURI, InvalidHandshake) as error:
        raise Unreachable(f"{where} is no WebSocket endpoint: {error}") from None
    except OSError as error:
        raise Unreachable(
            f"cannot connect to {where}: {_os_reason(error)}; is a gateway running there?"
        ) from None
    except EOFError:
        raise Unreachable(f"{where} hung up during the handshake") from None
    try:
        yield socket
    except ConnectionClosed:
        raise Disconnected(f"{where} closed the connection: {close_reason(socket)}") from None
    finally:
        await socket.close()


def close_reason(socket: ClientConnection) -> str:
    """How a connection ended, as ``code reason`` or in words when there was no close frame."""
    if socket.close_code in (None, 1006):
        return "the connection broke off (1006)"
    return f"{socket.close_code} {socket.close_reason or ''}".strip()


def _os_reason(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return error.strerror or str(error)
