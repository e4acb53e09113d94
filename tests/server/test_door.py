"""Workers share connections: one that carries more than its share lets the others accept."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from edge.server.board import BEAT_INTERVAL_S
from edge.server.door import MARGIN, steps_back
from tests.support.server import Server, running
from tests.support.speech import speech_packets


@pytest.mark.parametrize(
    ("mine", "others", "listening", "expected"),
    [
        (1000, [], True, False),
        (0, [0], True, False),
        (MARGIN, [0], True, False),
        (MARGIN + 1, [0], True, True),
        (MARGIN, [0], False, True),
        (MARGIN // 2, [0], False, False),
        (50, [49, 300], True, False),
        (300, [49, 50], True, True),
    ],
)
def test_only_a_worker_above_its_share_steps_back(
    mine: int, others: list[int], listening: bool, expected: bool
) -> None:
    assert steps_back(mine, others, listening=listening) is expected


def test_somebody_always_listens() -> None:
    for loads in ([5, 5, 5], [0, 100], [100, 90, 99], [7, 7, 30]):
        away = [
            steps_back(load, loads[:at] + loads[at + 1 :], listening=False)
            for at, load in enumerate(loads)
        ]
        assert not all(away)


def sockets_of(server: Server) -> list[int]:
    """Open sockets of each worker."""

    def is_socket(entry: Path) -> bool:
        try:
            return os.readlink(entry).startswith("socket:")
        except OSError:
            return False

    return [sum(map(is_socket, Path(f"/proc/{pid}/fd").iterdir())) for pid in server.workers()]


async def settled(server: Server) -> list[int]:
    """Open sockets once the requests that asked for readiness have gone."""
    seen = [-1]
    while seen != (now := sockets_of(server)):
        seen = now
        await asyncio.sleep(0.2)
    return seen


async def test_a_burst_of_connections_is_shared_evenly() -> None:
    with running("--workers", "2") as server:
        before = sockets_of(server)
        clients = await asyncio.gather(
            *(connect(server.transcribe_url, compression=None) for _ in range(200))
        )
        taken = [after - was for was, after in zip(before, sockets_of(server), strict=True)]
        assert min(taken) >= 80, taken
        await asyncio.gather(*(client.close() for client in clients))


async def test_connections_opened_one_by_one_are_shared_too() -> None:
    with running("--workers", "3") as server:
        before = sockets_of(server)
        clients = [await connect(server.transcribe_url, compression=None) for _ in range(60)]
        taken = [after - was for was, after in zip(before, sockets_of(server), strict=True)]
        assert max(taken) - min(taken) <= 2 * MARGIN, taken
        await asyncio.gather(*(client.close() for client in clients))


async def test_a_worker_above_its_share_of_tracks_lets_the_others_accept() -> None:
    """Tracks count like connections: few media servers may bring many of them."""
    with running("--workers", "2") as server:
        idle = await settled(server)
        talker = await connect(server.transcribe_url, compression=None)
        busy = [after - was for was, after in zip(idle, sockets_of(server), strict=True)].index(1)
        packet = base64.b64encode(speech_packets(1)[0]).decode()
        for number in range(5 * MARGIN):
            media = {"tag": str(number), "chunk": 1, "timestamp": 0, "payload": packet}
            await talker.send(json.dumps({"event": "media", "media": media}))
        while json.loads(server.get("/status").body)["tracks"] < 5 * MARGIN:
            await asyncio.sleep(0.02)
        await asyncio.sleep(2 * BEAT_INTERVAL_S)  # a worker looks at its load with each beat
        clients = [await connect(server.transcribe_url, compression=None) for _ in range(12)]
        taken = [after - was for was, after in zip(idle, sockets_of(server), strict=True)]
        assert taken[busy] <= 1 and max(taken) >= 12, taken
        await asyncio.gather(*(client.close() for client in (talker, *clients)))


async def test_a_lone_worker_takes_everything() -> None:
    with running("--workers", "1") as server:
        clients = await asyncio.gather(
            *(connect(server.transcribe_url, compression=None) for _ in range(100))
        )
        assert len(clients) == 100
        await asyncio.gather(*(client.close() for client in clients))
