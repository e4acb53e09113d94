"""kill -9 of a worker at random moments while meetings are recorded: ``make meeting-kills``.

    python -m tests.meeting.kills --kills 20

Recorders that were connected to the worker go on at another one and send again what had no ack.
What was acked must be in the object store as it was sent, and every figure must be that of what
is there.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from edge.demo.recorder import CHUNK_BYTES, Role, Stored
from edge.demo.rest import Meeting, State
from edge.meeting.keys import chunk_key, chunk_prefix, seq_of
from edge.objects.interface import ObjectStore
from edge.objects.opening import open_objects
from edge.objects.settings import ObjectSettings
from tests.meeting.support.streamer import Streamer, body_of, numbers
from tests.support.server import Server, running

WORKERS = 2
SESSIONS = ("interview", "面试 1", "third")
MOST_PAUSE_S = 1.5
STILL_S = 0.5


class Outcome(msgspec.Struct):
    """What was broken, and how much was asked of the gateway."""

    faults: list[str]
    acked: int
    connections: int


async def kills(count: int, seed: int, sessions: tuple[str, ...] = SESSIONS) -> Outcome:
    """Record meetings while ``count`` workers are killed, one after the other."""
    chance = random.Random(seed)
    with running("--workers", str(WORKERS)) as server:
        streamers = made(server.address, sessions)
        async with streaming(streamers):
            for _ in range(count):
                await asyncio.sleep(chance.uniform(0.1, MOST_PAUSE_S))
                await all_workers(server)
                server.kill_worker(chance.choice(server.workers()))
        # The last one was killed just now: nobody has used what it left.
        await until_still(server, sessions)
        faults = await compared(server, streamers)
        await asyncio.gather(*(streamer.finish() for streamer in streamers))
        faults += await compared(server, streamers)
    return Outcome(
        faults,
        sum(len(streamer.acked) for streamer in streamers),
        sum(streamer.connections for streamer in streamers),
    )


def made(address: str, sessions: tuple[str, ...]) -> list[Streamer]:
    """A client for either role of each session, and for one role two that take turns."""
    streamers: list[Streamer] = []
    for session in sessions:
        for role in ("teacher", "students"):
            counted = numbers()
            twins = 2 if (session, role) == (sessions[0], "teacher") else 1
            streamers += [Streamer(address, session, role, counted) for _ in range(twins)]
    return streamers


@asynccontextmanager
async def streaming(streamers: list[Streamer]) -> AsyncIterator[None]:
    """Stream during the block; a client that failed is raised."""
    tasks = [asyncio.create_task(streamer.run()) for streamer in streamers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ended:
        if not isinstance(error, asyncio.CancelledError):
            raise error if isinstance(error, BaseException) else AssertionError("it ended")


async def until_still(server: Server, sessions: tuple[str, ...]) -> None:
    """Wait until the chunks of clients that have left are stored: no figure moves any more."""
    before: list[State] = []
    async with asyncio.timeout(30):
        while True:
            meetings = [Meeting(server.url, session) for session in sessions]
            now = [await asyncio.to_thread(meeting.state) for meeting in meetings]
            if now == before:
                return
            before = now
            await asyncio.sleep(STILL_S)


async def compared(server: Server, streamers: list[Streamer]) -> list[str]:
    """What is wrong with what is stored, and with what the gateway says of it."""
    faults: list[str] = []
    roles: dict[tuple[str, Role], list[Streamer]] = {}
    for streamer in streamers:
        roles.setdefault((streamer.session, streamer.role), []).append(streamer)
    objects = open_objects(ObjectSettings(), server.data_dir)
    async with objects:
        for (session, role), clients in roles.items():
            held = await clients[0].held()
            state = await asyncio.to_thread(Meeting(server.url, session).state)
            seqs = await stored(objects, session, role)
            where = f"{session} {role}"
            for seq in seqs:
                body = await objects.get(chunk_key(session, role, seq))
                if body != body_of(session, role, seq):
                    faults.append(f"{where}: chunk {seq} is not what was sent")
            for client in clients:
                gone = sorted(set(client.acked) - set(seqs))
                faults += [f"{where}: chunk {seq} was acked and is not there" for seq in gone]
            counted = Stored(
                last_seq=max(seqs, default=0),
                received_chunks=len(seqs),
                missing_chunks=max(seqs, default=0) - len(seqs),
                bytes_stored=CHUNK_BYTES * len(seqs),
            )
            for what, said in (("ready", held), ("state", state.stored(role))):
                said = msgspec.structs.replace(said, duplicate_chunks=0)
                if said != counted:
                    faults.append(f"{where}: {what} says {said}, there is {counted}")
    return faults


async def stored(objects: ObjectStore, session: str, role: Role) -> list[int]:
    """The numbers of the chunks that are there."""
    prefix, after = chunk_prefix(session, role), ""
    seqs: list[int] = []
    while found := await objects.find(prefix, after):
        seqs += [seq for key in found if (seq := seq_of(key)) is not None]
        after = found[-1]
    return seqs


async def all_workers(server: Server) -> None:
    """Wait until there is another worker to go to."""
    async with asyncio.timeout(60):
        while len(server.workers()) < WORKERS or server.get("/ready").status != 200:
            await asyncio.sleep(0.05)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    arguments = parser.parse_args()
    outcome = asyncio.run(kills(arguments.kills, arguments.seed))
    print(
        f"{arguments.kills} workers killed, {outcome.acked} chunks acked on"
        f" {outcome.connections} connections;"
        f" {len(outcome.faults)} promises broken (seed {arguments.seed})"
    )
    print(*outcome.faults, sep="\n")
    return bool(outcome.faults)


if __name__ == "__main__":
    sys.exit(main())
