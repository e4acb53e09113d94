"""Workers that die or hang are replaced, and the others do not notice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.server import Server, running, wait_until

BACK_WITHIN_S = 2.0


def carried_by(server: Server) -> int:
    return int(json.loads(server.get("/status").body)["workers"])


def test_a_killed_worker_is_back_within_two_seconds() -> None:
    with running("--workers", "2") as server:
        victim = server.workers()[0]
        wait_until(lambda: carried_by(server) == 2, "two workers")
        began_s = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        wait_until(
            lambda: victim not in server.workers() and len(server.workers()) == 2, "its successor"
        )
        wait_until(lambda: carried_by(server) == 2, "two workers again")
        assert time.monotonic() - began_s <= BACK_WITHIN_S
        assert server.get("/ready").status == 200


def test_the_gateway_survives_the_death_of_all_its_workers_again_and_again() -> None:
    """A worker that never lives long is replaced after pauses, not in a storm."""
    with running("--workers", "1") as server:
        seen = set[int]()
        for _ in range(3):
            wait_until(lambda: bool(set(server.workers()) - seen), "another worker", 20)
            (worker,) = set(server.workers()) - seen
            seen.add(worker)
            server.wait_ready()
            os.kill(worker, signal.SIGKILL)
        wait_until(lambda: bool(set(server.workers()) - seen), "another worker", 20)
        server.wait_ready()
        assert server.log.count("a worker ended") == 3


def test_workers_that_die_together_are_all_back_soon() -> None:
    """They are started again one after the other: starts at the same moment could race."""
    with running("--workers", "3") as server:
        wait_until(lambda: carried_by(server) == 3, "three workers")
        victims = set(server.workers())
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        wait_until(
            lambda: len(set(server.workers()) - victims) == 3 and not victims & set(server.group()),
            "their successors",
        )
        server.wait_ready()
        wait_until(lambda: carried_by(server) == 3, "three workers again")
        assert server.log.count("a worker ended") == 3


async def test_a_neighbour_on_another_worker_keeps_its_connection() -> None:
    with running("--workers", "2") as server:
        clients = [await connect(server.transcribe_url) for _ in range(12)]
        os.kill(server.workers()[0], signal.SIGKILL)
        answers = await asyncio.gather(*map(ping, clients))
        assert True in answers
        await asyncio.gather(*(client.close() for client in clients))


async def ping(client: ClientConnection) -> bool:
    """Whether the connection still answers."""
    try:
        await client.send('{"event":"ping","id":1}')
        async with asyncio.timeout(5):
            while json.loads(await client.recv())["event"] != "pong":
                pass
    except ConnectionClosed:
        return False
    return True


def test_a_worker_that_hangs_is_replaced() -> None:
    with running("--workers", "2", "--set", "hang_deadline_s=1") as server:
        victim = server.workers()[0]
        os.kill(victim, signal.SIGSTOP)
        wait_until(
            lambda: victim not in server.workers() and len(server.workers()) == 2, "its successor"
        )
        assert "a worker hangs" in server.log
        wait_until(lambda: carried_by(server) == 2, "two workers again")


def test_a_stop_while_a_worker_is_being_replaced_ends_everything() -> None:
    with running("--workers", "2") as server:
        os.kill(server.workers()[0], signal.SIGKILL)
        wait_until(lambda: "a worker ended" in server.log, "the death is noticed")
        server.process.terminate()
        assert server.wait() == 0
