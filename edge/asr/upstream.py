"""A WebSocket to a recognizer's service, light enough to have one for each track.

Comes in: an address with credentials, and messages to send. Goes out: the service's messages and,
once, how the connection ended, both as calls on a listener. The opening handshake is the
``websockets`` library's; frames are those of ``_native.frames``. A connection owns no task and no
queue: messages are handed over as they are read, and what is sent goes straight to the transport,
whose ``writable`` its user respects. Only recognizers call it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import msgspec
from websockets.client import ClientProtocol
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from _native import frame_writer, frames
from _native.frames import BINARY, CLOSE, PING, TEXT, Decoder, FrameError
from edge.asr.burst import Burst
from edge.logs import get_logger
from edge.version import VERSION

_log = get_logger("edge.asr.upstream")

PING_S = 15.0
"""A service is asked for a sign of life so often, and given up if none came since the last time."""
CLOSE_S = 1.0
"""How long the closing handshake may take."""
MOST_MESSAGE_BYTES = 1 << 20
MOST_HEAD_BYTES = 32 * 1024
"""Of the answer to the opening handshake."""
WRITE_BUFFER_BYTES = 32 * 1024
"""Unsent bytes from which on a connection is not writable."""
KERNEL_QUEUE_BYTES = 64 * 1024
"""About a second of audio as base64."""
UNACKNOWLEDGED_MS = 15_000
"""How long sent data may go unacknowledged before the kernel gives the connection up (RFC 5482)."""
_DRAWN_BYTES = 1024
"""Of randomness, asked of the system at once."""
_NORMAL = frame_writer.close_payload(1000)


class Ending(msgspec.Struct, frozen=True):
    """How a connection ended: the code and reason of the service's close frame."""

    code: int | None = None
    """None when there was none: the connection was lost."""
    reason: str = ""


class Listener(Protocol):
    """Who uses a connection. Called on the event loop; must not block."""

    def received(self, message: bytes) -> None:
        """The service sent a message, text or binary."""
        ...

    def writable(self) -> None:
        """The connection takes messages again after a time in which it did not."""
        ...

    def ended(self, ending: Ending) -> None:
        """The connection is over; nothing follows. Not called after ``Upstream.close``."""
        ...


async def connect(
    url: str,
    *,
    headers: Mapping[str, str],
    subprotocols: Sequence[str] = (),
    tls: ssl.SSLContext | None,
    address: str | None = None,
) -> Upstream:
    """Open a connection to a ``ws`` or ``wss`` address; call ``listen`` on it at once.

    ``address`` is where the host of the URL is, for callers that have looked it up themselves.
    The caller sets the deadline; cancelling it leaves nothing open. No redirect is followed: the
    credentials must not go to a host nobody configured. Raises ``OSError`` (``ssl`` errors are
    some), and ``websockets.exceptions.InvalidHandshake`` (``InvalidStatus`` with the response).
    """
    uri = parse_uri(url)
    names = [Subprotocol(name) for name in subprotocols]
    handshake = ClientProtocol(uri, subprotocols=names or None)
    request = handshake.connect()
    request.headers["User-Agent"] = f"edgescribe/{VERSION}"
    request.headers.update(headers)
    handshake.send_request(request)
    loop = asyncio.get_running_loop()
    opening = _Opening(handshake, loop.create_future())
    try:
        await loop.create_connection(
            lambda: opening,
            address or uri.host,
            uri.port,
            ssl=(tls or True) if uri.secure else None,
            server_hostname=uri.host if uri.secure else None,
        )
        await opening.done
    except BaseException:
        opening.abort()
        raise
    return opening.connection()


class _Opening(asyncio.Protocol):
    """A connection until the service has agreed to speak WebSocket."""

    def __init__(self, handshake: ClientProtocol, done: asyncio.Future[None]) -> None:
        self.done = done
        self._handshake = handshake
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._answered = False

    def connection(self) -> Upstream:
        """The open connection."""
        assert self._transport is not None
        return Upstream(self._transport, self._received)

    def abort(self) -> None:
        """Leave nothing open."""
        self.done.cancel()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        _bound_kernel_queue(transport)
        self._transport.write(b"".join(self._handshake.data_to_send()))

    def data_received(self, data: bytes) -> None:
        if self._answered and not self.done.done():
            self._read(data)  # the body of a refusal
            return
        self._received += data
        if self._answered:
            return
        end = self._received.find(b"\r\n\r\n") + 4
        if end < 4 and len(self._received) <= MOST_HEAD_BYTES:
            return
        self._answered = True
        head, self._received = self._received[:end], self._received[end:]
        if end < 4:
            self._handshake.receive_eof()
            self._tell_failure()
        else:
            self._read(head)

    def _read(self, data: bytes) -> None:
        handshake, transport = self._handshake, self._transport
        handshake.receive_data(data)
        if handshake.state is State.OPEN and transport is not None:
            transport.pause_reading()
            if not self.done.done():
                self.done.set_result(None)
        elif self._received:
            body, self._received = self._received, b""
            handshake.receive_data(body)
        self._tell_failure()

    def eof_received(self) -> None:
        self._handshake.receive_eof()
        self._tell_failure()

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None and not self.done.done():
            self.done.set_exception(error)
        elif not self.done.done():
            self.eof_received()

    def _tell_failure(self) -> None:
        failure = self._handshake.handshake_exc
        if failure is not None and not self.done.done():
            self.done.set_exception(failure)


class Upstream(asyncio.Protocol):
    """An open connection: ``listen``, then send messages; ``close`` whatever happened."""

    __slots__ = (
        "_burst",
        "_decoder",
        "_early",
        "_heard",
        "_held",
        "_listener",
        "_loop",
        "_lost",
        "_said_close",
        "_timer",
        "_transport",
        "is_writable",
    )

    def __init__(self, transport: asyncio.Transport, early: bytes) -> None:
        """``transport`` does not read; ``early`` are the bytes that came with the handshake."""
        self._transport = transport
        self._early = early
        self._loop = asyncio.get_running_loop()
        self._burst = Burst.here()
        self._held: bytes | None = None
        """The frame that is written with the burst."""
        self._decoder = Decoder(MOST_MESSAGE_BYTES, masked=False)
        self._listener: Listener | None = None
        self._heard = True
        """Whether anything came since the last ping."""
        self._said_close = False
        self.is_writable = True
        """Whether a message may be sent: little is unsent and the connection is open."""
        self._lost: asyncio.Future[None] = self._loop.create_future()
        """Done when the transport is gone."""
        self._timer: asyncio.TimerHandle | None = None

    def listen(self, listener: Listener) -> None:
        """Begin to hand over messages, in a later turn of the event loop."""
        self._listener = listener
        self._timer = self._loop.call_later(PING_S, self._check_life)
        transport = self._transport
        transport.set_protocol(self)
        transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)
        if transport.is_closing():
            self._loop.call_soon(self.connection_lost, None)
            return
        early, self._early = self._early, b""
        if early:
            self._loop.call_soon(self.data_received, early)
        transport.resume_reading()

    def send_text(self, message: bytes) -> None:
        """Send a text message, if ``is_writable``; nothing else is checked."""
        self._write(frame_writer.encode_masked(TEXT, message, _keys.take()))

    def send_base64(self, head: bytes, data: bytes, tail: bytes) -> None:
        """Send a text message of ``head``, ``data`` as base64 and ``tail``, like ``send_text``.

        It is written at the end of the event loop's turn, together with those of other connections.
        """
        self._write_soon(frame_writer.encode_masked_base64(head, data, tail, _keys.take()))

    def send_binary(self, message: bytes) -> None:
        """Send a binary message, when and as ``send_base64`` does."""
        self._write_soon(frame_writer.encode_masked(BINARY, message, _keys.take()))

    def send_binary_many(self, messages: list[bytes]) -> None:
        """Send binary messages of up to 65,535 bytes in one write, like ``send_binary``."""
        keys = _keys.take(len(messages))
        self._write_soon(frame_writer.encode_masked_many(BINARY, messages, keys))

    def write_held(self) -> None:
        """The burst's call: write what has waited for it."""
        held, self._held = self._held, None
        if held is not None and not self._transport.is_closing():
            self._transport.write(held)

    async def close(self) -> None:
        """Shake hands and hang up within ``CLOSE_S``; cancelling it hangs up at once. Idempotent.

        The listener is told nothing more.
        """
        self._listener = None
        if self._lost.done():
            return
        self._say_close(_NORMAL)
        try:
            async with asyncio.timeout(CLOSE_S):
                await asyncio.shield(self._lost)
        except TimeoutError:
            pass  # it does not read, or does not answer
        finally:
            self._stop_timer()
            self._transport.abort()

    # asyncio's calls

    def data_received(self, data: bytes) -> None:
        self._heard = True
        decoder = self._decoder
        try:
            while True:
                for opcode, payload in decoder.decode(data):
                    if opcode > BINARY:
                        self._control(opcode, payload)
                    elif self._listener is not None:
                        self._listener.received(payload)
                if not decoder.pending:
                    return
                data = b""
        except FrameError as fault:
            self._say_close(frame_writer.close_payload(fault.code, str(fault)))
            self._end(Ending())
        except Exception:
            _log.exception("a service's message could not be handed over")
            self._say_close(frame_writer.close_payload(1011))
            self._end(Ending())

    def eof_received(self) -> None:
        self._end(Ending())

    def connection_lost(self, error: Exception | None) -> None:
        if not self._lost.done():
            self._lost.set_result(None)
        self._end(Ending())
        self._stop_timer()

    def pause_writing(self) -> None:
        self.is_writable = False

    def resume_writing(self) -> None:
        self.is_writable = not self._said_close
        if self._listener is not None and self.is_writable:
            self._listener.writable()

    def _write_soon(self, frame: bytes) -> None:
        """Write with the burst; a second frame does not wait: it may fill the connection."""
        if self._held is None:
            self._held = frame
            self._burst.add(self)
        else:
            self._write(frame)

    def _write(self, frame: bytes) -> None:
        """Write now, after what is held."""
        held, self._held = self._held, None
        if held is not None:
            self._transport.write(held)
        self._transport.write(frame)

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE:
            self._say_close(payload)
            self._end(Ending(*frames.parse_close(payload)))
        elif opcode == PING and not self._said_close:
            self._write(frame_writer.encode_masked(frames.PONG, payload, _keys.take()))

    def _say_close(self, payload: bytes) -> None:
        if not self._said_close:
            self._said_close = True
            self.is_writable = False
            if not self._transport.is_closing():
                self._write(frame_writer.encode_masked(CLOSE, payload, _keys.take()))

    def _end(self, ending: Ending) -> None:
        """Tell the listener, and give the service a moment to hang up first (RFC 6455 7.1.1)."""
        self._said_close = True
        self.is_writable = False
        listener, self._listener = self._listener, None
        if listener is not None:
            self._stop_timer()
            self._timer = self._loop.call_later(CLOSE_S, self._transport.abort)
            listener.ended(ending)

    def _check_life(self) -> None:
        if not self._heard:
            self._end(Ending())
            self._transport.abort()
            return
        self._heard = False
        self._write(frame_writer.encode_masked(PING, b"", _keys.take()))
        self._timer = self._loop.call_later(PING_S, self._check_life)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Keys:
    """Masking keys: four unpredictable bytes for each frame (RFC 6455 section 5.3)."""

    __slots__ = ("_at", "_drawn")

    def __init__(self) -> None:
        self._drawn = b""
        self._at = 0

    def take(self, frames: int = 1) -> bytes:
        """Keys for so many frames."""
        at = self._at
        end = self._at = at + 4 * frames
        if end > len(self._drawn):
            self._drawn = os.urandom(max(4 * frames, _DRAWN_BYTES))
            at, end = 0, 4 * frames
            self._at = end
        return self._drawn[at:end]


_keys = _Keys()


def _bound_kernel_queue(transport: asyncio.BaseTransport) -> None:
    """Let a service that stops reading show within seconds.

    By default the kernel would take in a minute of audio first.
    """
    found: socket.socket | None = transport.get_extra_info("socket")
    if found is None:
        return
    with contextlib.suppress(OSError):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_QUEUE_BYTES)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
