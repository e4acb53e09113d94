"""Receivers that stand in front of a protocol's: connections counted, and those told in a message.

After the first message nothing of this is on a message's way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from edge.auth.grants import Denied
from edge.auth.guard import Admission
from edge.auth.introductions import MOST_HELD, Introduce, Introduction
from edge.auth.quota import UNAUTHORIZED
from edge.transport.interface import Close, Receiver, Socket

AUTH_WITHIN_S = 10.0
FORBIDDEN = 4003
TOO_MANY = 4029
OK = b'{"type":"auth_ok"}'


class Counted:
    """A receiver whose connection counts against its key's."""

    __slots__ = ("_admission", "_receiver", "_socket", "message")

    def __init__(self, receiver: Receiver, admission: Admission) -> None:
        self._receiver = receiver
        self._admission = admission
        self._socket: Socket | None = None
        self.message = receiver.message

    def opened(self, socket: Socket) -> None:
        """The upgrade is done."""
        self._socket = socket
        self._admission.join(socket)
        self._receiver.opened(socket)

    def closed(self, close: Close) -> None:
        """The connection is over."""
        if self._socket is not None:
            self._admission.meter.leave(self._socket)
        self._receiver.closed(close)


class FirstFrame:
    """Lets a connection in once a first message has a key that is good, else closes it with 4401.

    ``judge`` answers or raises ``Denied``; ``admitted`` is told who it is before the protocol
    learns of its connection. It is one of the ``strangers`` until then.
    """

    def __init__(
        self,
        receiver: Receiver,
        introduce: Introduce,
        judge: Callable[[Introduction], Awaitable[Admission]],
        admitted: Callable[[Admission], None],
        strangers: set[FirstFrame],
    ) -> None:
        self._receiver = receiver
        self._introduce = introduce
        self._held: list[tuple[bytes, bool]] = []
        self._strangers = strangers
        self._judge = judge
        self._admitted = admitted
        self._socket: Socket | None = None
        self._admission: Admission | None = None
        self._due: asyncio.TimerHandle | None = None
        self._judging: asyncio.Task[None] | None = None
        self.message = self._first

    def opened(self, socket: Socket) -> None:
        """Wait for the key."""
        self._socket = socket
        self._strangers.add(self)
        self._due = asyncio.get_running_loop().call_later(AUTH_WITHIN_S, self._late)

    def closed(self, close: Close) -> None:
        """The connection is over."""
        if self._due is not None:
            self._due.cancel()
        if self._judging is not None:
            self._judging.cancel()
        socket, self._socket = self._socket, None
        self._strangers.discard(self)
        if self._admission is not None and socket is not None:
            self._admission.meter.leave(socket)
            self._receiver.closed(close)

    def _first(self, data: bytes, is_text: bool) -> None:
        if self._socket is None or self._judging is not None:
            return
        try:
            introduction = self._introduce(data)
        except ValueError as problem:
            self._socket.close(UNAUTHORIZED, str(problem))
            return
        if introduction is None or introduction.is_event:
            self._held.append((data, is_text))
        if introduction is not None:
            self._socket.pause()
            self._judging = asyncio.get_running_loop().create_task(self._decide(introduction))
        elif len(self._held) >= MOST_HELD:
            self._socket.close(UNAUTHORIZED, "No key among the first messages")

    async def _decide(self, introduction: Introduction) -> None:
        try:
            admission = await self._judge(introduction)
        except Denied as denied:
            if self._socket is not None:
                code = {403: FORBIDDEN, 429: TOO_MANY}.get(denied.status, UNAUTHORIZED)
                self._socket.close(code, denied.detail)
                self._socket.resume()
            return
        socket = self._socket
        if socket is None or not socket.is_open:
            return
        if self._due is not None:
            self._due.cancel()
        self._strangers.discard(self)
        self._admission = admission
        admission.join(socket)
        self._admitted(admission)
        self.message = self._receiver.message
        if not introduction.is_event:
            socket.send_text(OK)
        self._receiver.opened(socket)
        for data, is_text in self._held:
            self.message(data, is_text)
        self._held.clear()
        socket.resume()

    def _late(self) -> None:
        if self._socket is not None:
            self._socket.close(UNAUTHORIZED, f"No key within {AUTH_WITHIN_S:g} s")
