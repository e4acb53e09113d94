"""How a connection is brought up to date: welcome, what it missed or a snapshot, then the room."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import msgspec
from msgspec import UNSET, Raw, UnsetType

from edge.errors import HistoryLost
from edge.ingest.session_messages import Resume, Snapshot, encode
from edge.ingest.session_room import Member, Room
from edge.session.store.follower import Follower, Followers
from edge.transport.interface import Socket, text_frame

PAGE_BYTES = 32 * 1024
PAGE_FINALS = 200
"""A page of a snapshot ends with the final that reaches one of these."""
UNSENT_BYTES = 256 * 1024
"""While so much waits for a client, its replay waits too: a long one is not a slow client."""
LOOK_S = 0.01
AGAIN_S = 0.1


class Standing(msgspec.Struct, frozen=True):
    """Where a connection begins; the rest of a snapshot follows."""

    epoch: str
    offset: int
    recovered: bool
    snapshot: Snapshot | UnsetType = UNSET


class Replay:
    """Brings one connection up to date, once at its beginning and when the history is lost."""

    def __init__(
        self,
        room: Room,
        followers: Followers,
        socket: Socket,
        *,
        welcome: Callable[[Standing], None],
        member: Callable[[int], Member],
    ) -> None:
        self._room = room
        self._followers = followers
        self._socket = socket
        self._welcome = welcome
        self._member = member

    async def run(self, resume: Resume | None) -> None:
        """Return when the connection is in the room, or closed.

        Raises ``SessionDeleted`` and what else keeps the store from answering.
        """
        epoch, offset = (resume.epoch, resume.offset) if resume else ("", 0)
        while self._socket.is_open:
            with suppress(HistoryLost):
                await self._room.ready()
                follow = self._followers.follow(self._room.session, epoch, offset)
                async with follow as follower:
                    await self._bring(follower, fresh=not (resume and follower.recovered))
                return
            await asyncio.sleep(AGAIN_S)

    async def _bring(self, follower: Follower, *, fresh: bool) -> None:
        room, socket = self._room, self._socket
        if room.epoch != follower.epoch:
            raise HistoryLost(room.session, follower.epoch)
        if fresh:
            await self._snapshot(follower, room.offset)
        else:
            self._welcome(Standing(follower.epoch, follower.offset, True))
        while socket.is_open:
            if room.enter(self._member(follower.offset), follower.epoch):
                return
            if room.epoch != follower.epoch:
                raise HistoryLost(room.session, follower.epoch)
            for entry in await follower.next():
                socket.send_frame(text_frame(room.text(entry)))
            await self._has_room()

    async def _snapshot(self, follower: Follower, offset: int) -> None:
        """All finals up to ``offset``, in pages; the first goes with the welcome."""
        standing = Standing(follower.epoch, max(offset, follower.offset), False)
        finals: list[Raw] = []
        size = 0
        is_first = True
        last = follower.offset
        after: list[bytes] = []
        while last < offset and self._socket.is_open:
            for entry in await follower.next():
                last = entry.offset
                if last > offset:
                    after.append(text_frame(self._room.text(entry)))
                elif entry.kind == "final":
                    text = self._room.text(entry)
                    finals.append(Raw(text))
                    size += len(text)
                if size >= PAGE_BYTES or len(finals) >= PAGE_FINALS:
                    self._page(standing, finals, more=True, is_first=is_first)
                    finals, size, is_first = [], 0, False
                    await self._has_room()
        self._page(standing, finals, more=False, is_first=is_first)
        for frame in after:
            self._socket.send_frame(frame)

    def _page(self, standing: Standing, finals: list[Raw], *, more: bool, is_first: bool) -> None:
        page = Snapshot(finals, more)
        if is_first:
            self._welcome(msgspec.structs.replace(standing, snapshot=page))
        else:
            self._socket.send_text(encode(page))

    async def _has_room(self) -> None:
        await asyncio.sleep(0)
        while self._socket.is_open and self._socket.unsent_bytes > UNSENT_BYTES:
            await asyncio.sleep(LOOK_S)
