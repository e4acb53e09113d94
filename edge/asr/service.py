"""What recognizers of remote services have in common: reaching one, errors, audio that waits.

Comes in: a service's address and credentials, and what one of its streams has to send. Goes out: an
open ``Upstream`` or a ``RecognizerError`` that says what to do. Only recognizers call it.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import re
import ssl
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI
from websockets.uri import parse_uri

from edge.asr.upstream import Ending, Upstream, connect
from edge.errors import (
    RecognizerBusy,
    RecognizerClosed,
    RecognizerError,
    RecognizerRefused,
    RecognizerTimeout,
    SettingError,
)

REFUSING_CODES = frozenset({1008, 3000, 3003})
"""Close codes for policy violation, unauthorized and forbidden (IANA WebSocket registry)."""
_KEY_TEXT = re.compile(r"\bsk-[^\s\"',.]+|\b[0-9a-fA-F]{32,}\b")
_MOST_ERROR_CHARACTERS = 300
_T = TypeVar("_T")


class Service:
    """One vendor's WebSocket service, shared by all streams of a worker."""

    def __init__(self, name: str, url: str | None, *, url_setting: str, key_setting: str) -> None:
        """``name`` is the vendor's, for messages, which also name the settings to look at.

        Without ``url`` each connection has to bring one. Raises ``SettingError`` for an address
        that is not one.
        """
        self.name = name
        self.url = "" if url is None else checked_url(url_setting, url)
        self._url_setting = url_setting
        self._key_setting = key_setting
        self._tls: ssl.SSLContext | None = None

    async def start(self) -> None:
        """Read the certificates that are trusted, which takes too long for the event loop."""
        self._tls = self._tls or await asyncio.to_thread(ssl.create_default_context)

    async def connect(
        self,
        url: str | None = None,
        *,
        headers: Mapping[str, str],
        subprotocols: Sequence[str] = (),
        address: str | None = None,
    ) -> Upstream:
        """Open a connection to ``url``, or to the service's own address.

        ``address`` is where the URL's host is, for callers that have looked it up themselves.
        The caller sets the deadline; cancelling it leaves nothing open. Raises ``RecognizerError``.
        """
        url = url or self.url
        tls = None
        if urlsplit(url).scheme == "wss":
            await self.start()
            tls = self._tls
        try:
            return await connect(
                url, headers=headers, subprotocols=subprotocols, tls=tls, address=address
            )
        except InvalidStatus as error:
            raise self._status_error(error) from error
        except ssl.SSLCertVerificationError as error:
            raise RecognizerRefused(
                f"{self.name}: the certificate of {host(url)} is not trusted: "
                f"{error.verify_message}"
            ) from error
        except TimeoutError as error:
            raise RecognizerTimeout(f"{self.name}: {host(url)} does not answer") from error
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise RecognizerClosed(f"{self.name}: cannot reach {host(url)}: {reason}") from error
        except InvalidHandshake as error:
            raise RecognizerClosed(
                f"{self.name}: {host(url)} did not complete the WebSocket handshake"
            ) from error

    def _status_error(self, error: InvalidStatus) -> RecognizerError:
        status = error.response.status_code
        text = f"{self.name} answered {status} to the connection"
        if status in (408, 425, 429) or status >= 500:
            return RecognizerBusy(text, retry_after_s(error.response.headers.get("Retry-After")))
        hint = {
            400: "; check the model, the language and the address",
            401: f"; check {self._key_setting}",
            402: "; the account has no credit",
            403: "; the key has no access",
            404: f"; check {self._url_setting}",
        }
        return RecognizerRefused(text + hint.get(status, ""))


class Outbox:
    """What a stream sends: at once where the connection takes it, otherwise in order when it does.

    Not bounded by itself: its user looks at ``queued_ms`` and gives the stream up.
    """

    __slots__ = ("_connection", "_waiting", "queued_ms")

    def __init__(self, connection: Upstream) -> None:
        self._connection = connection
        self._waiting: deque[tuple[Callable[[Any], None], Any, float]] = deque()
        self.queued_ms = 0.0
        """Audio that waits."""

    def put(self, send: Callable[[_T], None], piece: _T, audio_ms: float = 0.0) -> bool:
        """Call ``send`` with ``piece``, which holds so much audio, now or as soon as possible.

        ``send`` may encode it first, so that what waits is small. True: it was called now.
        """
        if self._connection.is_writable and not self._waiting:
            send(piece)
            return True
        self._waiting.append((send, piece, audio_ms))
        self.queued_ms += audio_ms
        return False

    def flush(self) -> None:
        """Send on what had to wait; for ``Listener.writable``."""
        waiting = self._waiting
        while waiting and self._connection.is_writable:
            send, piece, audio_ms = waiting.popleft()
            self.queued_ms = self.queued_ms - audio_ms if waiting else 0.0
            send(piece)

    def clear(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
        self.queued_ms = 0.0


def checked_url(setting: str, url: str) -> str:
    """The address, if it is one of a WebSocket; raises ``SettingError`` without its secrets."""
    try:
        parse_uri(url)
    except (InvalidURI, ValueError):
        problem = "it is a ws:// or wss:// address, without a fragment"
        raise SettingError(setting, host(url), problem) from None
    return url


def host(url: str) -> str:
    """The address without path, query and credentials: what may stand in a log."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def ending_error(name: str, ending: Ending, *, accepted: bool) -> RecognizerError:
    """Why a connection ended that nobody closed here.

    ``accepted`` says that the service had taken key and configuration: a policy violation after
    that concerns this connection, not the next.
    """
    if ending.code is None:
        return RecognizerClosed(f"{name}: the connection was lost")
    text = f"{name} closed the connection with {ending.code}"
    if ending.reason:
        text += f": {plain(ending.reason)}"
    if ending.code in REFUSING_CODES and not accepted:
        return RecognizerRefused(text)
    return RecognizerClosed(text)


def plain(message: str) -> str:
    """A message of a service fit for logs and clients: it may quote parts of the key."""
    return _KEY_TEXT.sub("***", message)[:_MOST_ERROR_CHARACTERS]


class _Kind(msgspec.Struct, frozen=True):
    type: str


_kind_decoder = msgspec.json.Decoder(_Kind)


def decode_tagged(
    decoder: msgspec.json.Decoder[_T], kinds: Collection[str], message: bytes
) -> _T | None:
    """A message told by its ``type``, or None for a type that is not one of ``kinds``.

    Raises ``msgspec.DecodeError`` for what is not JSON or not in its type's form.
    """
    try:
        return decoder.decode(message)
    except msgspec.ValidationError:
        if _kind_decoder.decode(message).type in kinds:
            raise
        return None


def retry_after_s(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date (RFC 9110 section 10.2.3)."""
    if value is None:
        return None
    with contextlib.suppress(ValueError):
        return max(float(int(value)), 0.0)
    with contextlib.suppress(ValueError, TypeError):
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    return None
