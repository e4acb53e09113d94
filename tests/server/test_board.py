"""What workers write on the board, every process can read."""

from __future__ import annotations

import multiprocessing
from typing import Any

import pytest

from edge.server import board as board_module
from edge.server.board import Totals, WorkerBoard


def beat(rows: Any, started: Any, worker: int) -> None:
    board = WorkerBoard(rows, started)
    board.beat(worker, pid=1, active=2, detached=1, tracks=5, draining=False)
    board.start()


def test_totals_are_sums_over_living_workers() -> None:
    board = WorkerBoard.create(3)
    assert board.totals() == Totals(0, 0, 0, 0, 0)
    board.beat(0, pid=10, active=1, detached=2, tracks=3, draining=True)
    board.beat(2, pid=12, active=10, detached=20, tracks=30, draining=False)
    assert board.totals() == Totals(detached=22, active=11, tracks=33, workers=2, draining=1)
    assert not board.all_alive
    board.clear(0)
    assert board.totals() == Totals(detached=20, active=10, tracks=30, workers=1, draining=0)


def test_another_process_writes_what_this_one_reads() -> None:
    board = WorkerBoard.create(2)
    assert not board.is_started
    process = multiprocessing.get_context("spawn").Process(
        target=beat, args=(board.rows, board.started, 1)
    )
    process.start()
    process.join()
    assert board.is_started
    assert board.totals() == Totals(detached=1, active=2, tracks=5, workers=1, draining=0)


def test_a_worker_that_stops_beating_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    board = WorkerBoard.create(1)
    beat(board.rows, board.started, 0)
    assert board.all_alive
    later_s = board.rows[0].beat_s + board_module.STALE_AFTER_S
    monkeypatch.setattr(board_module.time, "monotonic", lambda: later_s)
    assert not board.all_alive
    assert board.totals().workers == 0
