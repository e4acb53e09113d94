"""The half of a connection that writes: messages, pongs, our close frame, and their bounds."""

from __future__ import annotations

import asyncio

from _native import frame_writer, frames
from _native.frames import BINARY, CLOSE, PING, PONG, TEXT
from edge.transport.interface import Close, Limits
from edge.transport.owner import Owner
from edge.transport.watch import Verdict, Watch

WRITE_BUFFER_BYTES = 64 * 1024
"""Unsent bytes from which on a pong waits, so that a flood of pings cannot fill the outbox."""

PROMPT_PONGS = 1000
"""Pings answered between two sweeps; of those beyond, the latest is answered at the next."""

_EMPTY_PING = frame_writer.encode(PING, b"")


class WritingHalf(asyncio.Protocol):
    """What ``Connection`` sends and how it begins to end."""

    __slots__ = (
        "_choked",
        "_close",
        "_mute",
        "_owner",
        "_pong",
        "_prompt_pongs",
        "_settings",
        "_slow_code",
        "_transport",
        "_watch",
        "bytes_out",
        "messages_out",
    )

    def __init__(self, transport: asyncio.Transport, owner: Owner, limits: Limits) -> None:
        self._transport = transport
        self._owner = owner
        self._settings = owner.settings_of(limits)
        self._slow_code = limits.slow_code
        self._watch = Watch(owner.loop.time(), self._settings)
        self.messages_out = 0
        self.bytes_out = 0
        # How it ends: decided once, by the first close frame either way or by a loss.
        self._close: Close | None = None
        self._mute = False  # nothing more may be written
        self._choked = False  # more than the write buffer's limit is unsent
        self._pong: bytes | None = None  # payload of the latest that had to wait
        self._prompt_pongs = PROMPT_PONGS  # left until the next sweep

    @property
    def is_open(self) -> bool:
        """False from the moment either side has begun to close."""
        return not self._mute

    def send_text(self, text: bytes) -> bool:
        """Send one text message; False when the connection is closing."""
        return self._send(TEXT, text)

    def send_binary(self, data: bytes) -> bool:
        """Send one binary message; False when the connection is closing."""
        return self._send(BINARY, data)

    def send_frame(self, frame: bytes) -> bool:
        """Send a frame that ``text_frame`` made; False when the connection is closing."""
        return self._send_frame(frame)

    @property
    def unsent_bytes(self) -> int:
        """What was sent and the system has not taken yet."""
        return self._transport.get_write_buffer_size()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the closing handshake; ``ValueError`` for a code that may not be sent."""
        payload = frame_writer.close_payload(code, reason)
        if self._mute or self._close is not None:
            return
        self._close = Close(*frames.parse_close(payload), by_peer=False)
        self._write(frame_writer.encode(CLOSE, payload))
        self._mute = True
        self._give_up_after(self._settings.client_close_timeout_s)

    def abort(self) -> None:
        """Cut the connection without a handshake; what has arrived is still delivered."""
        self._mute = True
        self._transport.abort()

    def pause_writing(self) -> None:
        """Unsent bytes have passed the write buffer's limit."""
        self._choked = True

    def resume_writing(self) -> None:
        """Unsent bytes have fallen below the limit."""
        self._choked = False
        self._send_late_pong()

    def _enforce(self, now_s: float, *, heard_bytes: int, listening: bool) -> None:
        """Do what the time demands; the arguments are as for ``Watch.look``."""
        if self._watch.is_cut(now_s):
            self.abort()
        self._prompt_pongs = PROMPT_PONGS
        if not self._choked:
            self._send_late_pong()
        if self._mute:
            return
        verdict = self._watch.look(
            now_s,
            self._settings,
            heard_bytes=heard_bytes,
            written_bytes=self.bytes_out,
            unsent_bytes=self._transport.get_write_buffer_size(),
            listening=listening,
        )
        if verdict is Verdict.PING:
            self._write(_EMPTY_PING)
        elif verdict is Verdict.DROP_SLOW:
            self._drop_slow_peer()
        elif verdict is Verdict.DROP_SILENT:
            self._owner.count_silent()
            self.close(1011, "No answer to a ping")

    def _probe(self) -> None:
        """Write something: a machine whose program has closed answers it with a reset."""
        self._write(_EMPTY_PING)

    def _answer_ping(self, payload: bytes) -> None:
        if self._choked or self._prompt_pongs == 0:
            # RFC 6455 section 5.5.3: answering only the latest ping is enough.
            self._pong = payload
        else:
            self._prompt_pongs -= 1
            self._write(frame_writer.encode(PONG, payload))

    def _send_late_pong(self) -> None:
        payload, self._pong = self._pong, None
        if payload is not None and not self._mute:
            self._write(frame_writer.encode(PONG, payload))

    def _send(self, opcode: int, payload: bytes) -> bool:
        if self._mute:
            return False
        return self._send_frame(frame_writer.encode(opcode, payload))

    def _send_frame(self, frame: bytes) -> bool:
        if self._mute:
            return False
        if self._choked and not self._has_room(len(frame)):
            return False
        self.messages_out += 1
        self._write(frame)
        return True

    def _write(self, frame: bytes) -> None:
        self.bytes_out += len(frame)
        self._transport.write(frame)

    def _has_room(self, size: int) -> bool:
        unsent = self._transport.get_write_buffer_size()
        if unsent + size <= self._settings.client_outbox_bytes:
            return True
        self._drop_slow_peer()
        return False

    def _drop_slow_peer(self) -> None:
        self._owner.count_slow()
        self.close(self._slow_code, "Peer reads too slowly")

    def _give_up_after(self, delay_s: float) -> None:
        self._watch.cut_at(self._owner.loop.time() + delay_s)
