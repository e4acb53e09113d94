"""The two faces of an upgraded connection: ``Socket`` (call it) and ``Receiver`` (be called)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from _native.frame_writer import encode
from _native.frames import TEXT, Taker


class Close(msgspec.Struct, frozen=True):
    """How a connection ended: the code and reason that decided it, and who sent them first."""

    code: int
    """RFC 6455 7.4; 1005 = a close frame without a code, 1006 = no close frame at all."""
    reason: str = ""
    by_peer: bool = True


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one route allows its connections; None leaves a limit to the settings."""

    max_message_bytes: int = 64 * 1024
    """A longer message, counted over all its fragments, closes the connection with 1009."""
    outbox_bytes: int | None = None
    """A client is closed when more bytes wait for it."""
    send_timeout_s: float | None = None
    """A client is closed when a byte waits for it for so long."""
    ping_interval_s: float | None = None
    """Seconds between pings."""
    slow_code: int = 1008
    """What a client is closed with that reads too slowly."""


class Socket(Protocol):
    """An open WebSocket. All methods are for the event loop's thread and never block."""

    @property
    def remote(self) -> str:
        """Peer address ``host:port`` for logs."""
        ...

    @property
    def is_open(self) -> bool:
        """False from the moment either side has begun to close."""
        ...

    def send_text(self, text: bytes) -> bool:
        """Send one text message (valid UTF-8, not checked); order is kept.

        Returns False when it was not taken because the connection is closing. A peer that reads too
        slowly is closed with 1008 when its outbox is full or its oldest byte is too old.
        """
        ...

    def send_frame(self, frame: bytes) -> bool:
        """Send what ``text_frame`` made, once for many sockets; otherwise like ``send_text``."""
        ...

    @property
    def unsent_bytes(self) -> int:
        """What was sent and the system has not taken yet: from some size on a peer is slow."""
        ...

    def send_binary(self, data: bytes) -> bool:
        """Send one binary message; otherwise like ``send_text``."""
        ...

    def pause(self) -> None:
        """Deliver nothing more until ``resume``; past a bound the peer's TCP window closes too.

        A pause ends with the connection: what is queued then is delivered before ``closed``.
        """
        ...

    def resume(self) -> None:
        """Deliver again, starting with what was queued."""
        ...

    def hand_over(self, taker: Taker, taken: Callable[[], float]) -> None:
        """Offer each whole message of its kind to ``taker`` before it becomes one.

        ``taken`` is called in the same turn after it took some, and before the next message is
        delivered; it returns the seconds until more is needed, 0 when it does not know. What the
        taker takes is no message of ``Receiver.message``; the order of all is kept.
        """
        ...

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the closing handshake after all that was sent; ``reason`` is cut to 123 bytes.

        ``Receiver.closed`` follows in every case, after the messages that the peer sent before it
        saw the close. Later calls do nothing. ``ValueError`` for a code that may not be sent.
        """
        ...


def text_frame(text: bytes) -> bytes:
    """A text message as ``Socket.send_frame`` takes it; valid UTF-8, not checked."""
    return encode(TEXT, text)


class Receiver(Protocol):
    """What a client protocol implements to be fed by a connection."""

    def opened(self, socket: Socket) -> None:
        """The upgrade is done; called once, before anything else."""
        ...

    def message(self, data: bytes, is_text: bool) -> None:
        """One whole message, in order. Text has been checked to be UTF-8.

        It runs on the event loop and must be short. An exception closes the connection with 1011.
        """
        ...

    def closed(self, close: Close) -> None:
        """The connection is over; called once, after every message that arrived before it."""
        ...
