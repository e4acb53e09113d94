"""A member of a room whose socket is crowded: entries come all the same, interims wait."""

from __future__ import annotations

import asyncio

import pytest

from edge.ingest.session_room import CROWDED_BYTES, Member
from edge.transport.interface import Socket


class Pipe:
    """A socket that keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.unsent_bytes = 0
        self.is_open = True

    def send_frame(self, frame: bytes) -> bool:
        self.sent.append(frame)
        return True


class Guest:
    def moved(self) -> None:
        pass

    def ended(self) -> None:
        pass


def member(pipe: Pipe) -> Member:
    socket: Socket = pipe  # type: ignore[assignment]
    return Member(Guest(), socket, 0, conflate_s=0.01)


async def until(pipe: Pipe, count: int) -> None:
    async with asyncio.timeout(5):
        while len(pipe.sent) < count:
            await asyncio.sleep(0.005)


async def test_who_reads_slowly_gets_every_entry_and_of_interims_the_newest() -> None:
    pipe = Pipe()
    slow = member(pipe)
    pipe.unsent_bytes = CROWDED_BYTES
    for revision in range(20):
        slow.part("anna", b"part %d" % revision)
    slow.entry(1, b"entry 1", None)
    slow.entry(2, b"entry 2", None)
    await asyncio.sleep(0.1)
    assert pipe.sent == [b"entry 1", b"entry 2"]
    pipe.unsent_bytes = 0
    await until(pipe, 3)
    assert pipe.sent[2:] == [b"part 19"]
    slow.leave()


async def test_an_interim_whose_turn_has_ended_meanwhile_is_not_sent() -> None:
    pipe = Pipe()
    slow = member(pipe)
    pipe.unsent_bytes = CROWDED_BYTES
    slow.part("anna", b"part")
    slow.entry(1, b"final", "anna")
    pipe.unsent_bytes = 0
    slow.part("ben", b"another")
    await until(pipe, 2)
    assert pipe.sent == [b"final", b"another"]
    slow.leave()


@pytest.mark.parametrize("offset", [1, 2])
async def test_an_entry_that_was_sent_is_not_sent_again(offset: int) -> None:
    pipe = Pipe()
    follower = member(pipe)
    follower.entry(2, b"entry 2", None)
    follower.entry(offset, b"again", None)
    assert pipe.sent == [b"entry 2"]
