"""One upgraded connection: an asyncio protocol that speaks RFC 6455 and feeds a ``Receiver``.

It owns no task and no timer. Bytes are decoded and delivered inside ``data_received``; when there
is more than one turn's worth, the rest is delivered in turns of the event loop while reading is
paused. Deadlines are kept by the registry, which calls ``sweep`` on every connection.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable

from _native import frame_writer, frames
from _native.frames import BINARY, CLOSE, PING, TEXT, Decoder, FrameError, Taker
from edge.transport.hangup import has_gone
from edge.transport.interface import Close, Limits, Receiver
from edge.transport.owner import NOBODY, Owner
from edge.transport.reading import ReadingHalf

logger = logging.getLogger(__name__)

SLICE = 4
"""Frames decoded at once: between two slices a turn looks at the clock."""
TURN_SLICES = 64
TURN_S = 0.0003
"""A turn delivers so many slices or takes about so long; then other sockets have theirs."""
BIG_READ_BYTES = 16 * 1024
"""While others wait for their turn, a read of more than this waits for its own from the start."""
MESSAGE_OVERHEAD_BYTES = 96
"""What a queued message weighs beside its payload, counted against the inbox's bound."""
LINGER_S = 1.0
"""How long a failed TLS connection, which has no half-close, lets its close frame travel."""


class Connection(ReadingHalf):
    """``edge.transport.interface.Socket`` on an asyncio transport.

    ``siblings`` is the set in which the HTTP server keeps its connections; this one leaves it when
    it is lost.
    """

    __slots__ = (
        "_backlog",
        "_backlog_bytes",
        "_behind",
        "_deaf",
        "_decoder",
        "_gone",
        "_held",
        "_receiver",
        "_remote",
        "_siblings",
        "_taken",
        "_taker",
        "_turn_due",
        "messages_in",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        receiver: Receiver,
        owner: Owner,
        limits: Limits,
        siblings: set[object],
    ) -> None:
        super().__init__(transport, owner, limits)
        self._receiver: Receiver = receiver
        self._siblings = siblings
        self._taker: Taker | None = None
        self._taken: Callable[[], float] | None = None
        self._decoder = Decoder(limits.max_message_bytes)
        self._remote = _address(transport.get_extra_info("peername"))
        self.messages_in = 0
        self._deaf = False  # nothing more is decoded
        self._gone = False  # the peer is; what it sent is still being read

        # Inbound: behind = something is queued or held, so new data must queue up too.
        self._behind = False
        self._held = False  # the receiver has paused
        self._turn_due = False
        self._backlog: deque[tuple[int, bytes]] | None = None
        self._backlog_bytes = 0

    # The socket's face to the receiver

    @property
    def remote(self) -> str:
        """Peer address ``host:port`` for logs."""
        return self._remote

    def hand_over(self, taker: Taker, taken: Callable[[], float]) -> None:
        """Offer each whole message of its kind to ``taker`` before it becomes one."""
        self._taker, self._taken = taker, taken

    def pause(self) -> None:
        """Deliver nothing more until ``resume``."""
        if not (self._lost or self._gone):
            self._held = self._behind = True

    def resume(self) -> None:
        """Deliver again, in a later turn of the event loop."""
        if self._held:
            self._held = False
            self._schedule_turn()

    # The face to the server that stops and to the registry

    def open(self, first: bytes, *, lost: bool = False) -> None:
        """Tell the receiver, then deliver ``first``, which came with the handshake.

        ``lost`` says that the transport was gone before; the receiver is told of it as of any end.
        """
        self._mute = lost
        try:
            self._receiver.opened(self)
        except Exception:
            self._crash()
        if first:
            self.data_received(first)
        if lost:
            self.connection_lost(None)

    def close_if_idle(self) -> bool:
        """Sanic's call on each connection when it stops; True would mean closed already."""
        self.close(1001, "Server is stopping")
        return False

    def sweep(self, now_s: float) -> None:
        """Enforce every deadline; called a few times in the shortest of them."""
        self._enforce(now_s, heard_bytes=self.bytes_in, listening=self.is_reading)
        if self._sated:
            self._sated = False
            self._schedule_turn()
        if not (self.is_reading or self._lost or self._gone):
            self._look_for_peer()
        self._consider_rounds(now_s)

    # asyncio's calls

    def data_received(self, data: bytes) -> None:
        """Bytes from the peer."""
        self.bytes_in += len(data)
        self._reads += 1
        if self._behind:
            if self._held:
                self._queue(data)
            else:
                self._decode(data, 0)
            return
        others_wait = self._owner.turns_due
        first = 0 if others_wait and len(data) > BIG_READ_BYTES else SLICE
        self._deliver(self._decode(data, first, self._taker))
        if self._held or self._decoder.pending:
            if others_wait:
                self._settle()
            else:
                self._turn(time.perf_counter() + TURN_S)

    def eof_received(self) -> None:
        """The peer will send no more: without a close frame that is an abnormal end."""
        self._mute = True
        self._give_up_after(self._settings.client_close_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone: deliver what is left, held or not, then say so."""
        self._lost = self._mute = True
        self._held = False
        self._siblings.discard(self)
        self.leave_rounds()
        if self._behind:
            self._schedule_turn()
        else:
            self._finish()

    # Inbound

    def _turn(self, ends_s: float) -> None:
        """Deliver what waits, queued or not decoded yet: a slice, and more until ``ends_s``."""
        for _ in range(TURN_SLICES):
            if self._held or not (self._backlog or (self._decoder.pending and not self._deaf)):
                break
            self._deliver(self._next_items())
            if time.perf_counter() >= ends_s:
                break
        self._settle()

    def _next_items(self) -> list[tuple[int, bytes]]:
        """The next slice: what was queued while the receiver paused, else fresh from the bytes."""
        backlog = self._backlog
        if backlog:
            items = [backlog.popleft() for _ in range(min(SLICE, len(backlog)))]
            self._backlog_bytes -= sum(map(_weight, items))
            return items if self._taker is None else _not_taken(self._taker, items)
        return self._decode(b"", SLICE, self._taker)

    def _decode(
        self, data: bytes, limit: int, taker: Taker | None = None
    ) -> list[tuple[int, bytes]]:
        """Up to ``limit`` items of ``data`` and what is left; a violation ends the connection."""
        if self._deaf:
            return []
        try:
            return self._decoder.decode(data, limit, taker)
        except FrameError as fault:
            self._owner.count_fault(fault.code)
            self._fail(fault.code, str(fault))
            return []

    def _deliver(self, items: list[tuple[int, bytes]]) -> None:
        taker = self._taker
        if not items and (taker is None or not taker.waiting):
            return
        message = self._receiver.message
        rest = iter(items)
        try:
            if taker is not None and taker.waiting:
                self.messages_in += taker.waiting
                taker.waiting = 0
                if self._taken is not None:
                    self.rest_s = self._taken()
            for opcode, payload in rest:
                self.rest_s = 0.0
                if opcode <= BINARY:
                    self.messages_in += 1
                    message(payload, opcode == TEXT)
                    if self._held:
                        break
                else:
                    self._control(opcode, payload)
        except Exception:
            self._crash()
            return
        if self._held:
            self._set_aside(rest, front=True)

    def _settle(self) -> None:
        """After a turn: read on when all is delivered, else see to it that the rest will be."""
        if self._held:
            self._queue(b"")
        elif self._backlog or (self._decoder.pending and not self._deaf):
            self._behind = True
            self._schedule_turn()
            self._stop_reading()
        else:
            self._backlog = None
            self._behind = False
            self._read_on()
            if self._lost:
                self._finish()

    def _queue(self, data: bytes) -> None:
        """While the receiver pauses: answer control frames, keep messages up to the bound."""
        bound = self._settings.client_inbox_bytes
        self._decode(data, 0)
        for _ in range(TURN_SLICES):
            if self._backlog_bytes >= bound or self._deaf or not self._decoder.pending:
                break
            self._set_aside(self._decode(b"", SLICE), front=False)
        if self._deaf or not self._decoder.pending:
            self._read_on()
        else:
            self._stop_reading()
            if self._backlog_bytes < bound:
                self._schedule_turn()

    def _set_aside(self, items: Iterable[tuple[int, bytes]], *, front: bool) -> None:
        """Queue messages (in ``front`` of what is queued already) and handle control frames."""
        messages = []
        for item in items:
            if item[0] > BINARY:
                self._control(*item)
            else:
                messages.append(item)
                self._backlog_bytes += _weight(item)
        if not messages:
            return
        if self._backlog is None:
            self._backlog = deque()
        if front:
            self._backlog.extendleft(reversed(messages))
        else:
            self._backlog.extend(messages)

    def _schedule_turn(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            self._owner.queue_turn(self)

    def take_turn(self, ends_s: float) -> None:
        """Deliver until ``ends_s`` (``time.perf_counter``): this connection's turn has come."""
        self._turn_due = False
        if self._held:
            self._queue(b"")
        else:
            self._turn(ends_s)

    def _look_for_peer(self) -> None:
        """Nobody is read at his pace who has gone: the rest is taken at once, to the end."""
        if has_gone(self._transport):
            self._gone = self._mute = True
            self._held = False
            self._schedule_turn()
        elif not self._mute:
            self._probe()

    # Control frames and the end

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE:
            self._peer_closed(payload)
        elif opcode == PING and not self._mute:
            self._answer_ping(payload)
            if self._prompt_pongs == 0 and not self._sated:
                # Messages are paced by the receiver, pings here: read on after the sweep.
                self._sated = True
                self._stop_reading()

    def _peer_closed(self, payload: bytes) -> None:
        self._deaf = True
        if self._close is None:
            self._close = Close(*frames.parse_close(payload), by_peer=True)
            if not self._mute:
                self._write(frame_writer.encode(CLOSE, payload))
        self._mute = True
        if not self._lost:
            self._give_up_after(self._settings.client_close_timeout_s)
            self._transport.close()

    def _fail(self, code: int, reason: str) -> None:
        """RFC 6455 section 7.1.7: say why, then hang up without waiting for a close frame.

        Reading goes on, to nowhere: closing with bytes unread would reset the connection and could
        take our close frame from the peer.
        """
        self._deaf = True
        if self._lost:
            self._close = self._close or Close(code, reason, by_peer=False)
        elif self._mute:
            self._transport.close()
        else:
            self.close(code, reason)
            if self._transport.can_write_eof():
                self._transport.write_eof()
            else:
                self._give_up_after(LINGER_S)
            self._read_on()

    def _crash(self) -> None:
        """The receiver raised: it is told that the connection is over, and nothing else."""
        logger.exception("The receiver of %s failed; its connection is closed", self._remote)
        self._backlog = None
        self._backlog_bytes = 0
        self._held = False
        self._owner.count_fault(1011)
        self._fail(1011, "Internal error")

    def _finish(self) -> None:
        receiver, self._receiver = self._receiver, NOBODY
        self._taker = self._taken = None
        if receiver is NOBODY:
            return
        try:
            receiver.closed(self._close or Close(1006))
        except Exception:
            logger.exception("The receiver of %s failed when told of its end", self._remote)
        self._owner.forget(self)


def _not_taken(taker: Taker, items: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """The items from the first on that ``taker`` does not take."""
    for index, (opcode, payload) in enumerate(items):
        if opcode != taker.opcode or not taker.offer(payload):
            return items[index:]
    return []


def _weight(item: tuple[int, bytes]) -> int:
    return len(item[1]) + MESSAGE_OVERHEAD_BYTES


def _address(peername: object) -> str:
    """``host:port`` of an asyncio ``peername``, IPv6 in brackets; empty for a Unix socket."""
    if not isinstance(peername, tuple):
        return ""
    host, port = peername[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
