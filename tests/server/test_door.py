"""Workers share connections: one that carries more than its share lets the others accept."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from edge.server.door import MARGIN, steps_back
from tests.support.server import Server, running


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


async def test_a_lone_worker_takes_everything() -> None:
    with running("--workers", "1") as server:
        clients = await asyncio.gather(
            *(connect(server.transcribe_url, compression=None) for _ in range(100))
        )
        assert len(clients) == 100
        await asyncio.gather(*(client.close() for client in clients))
