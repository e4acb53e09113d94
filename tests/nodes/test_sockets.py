"""Every socket works on any node: the suite of the sockets, through a naive balancer.

Two nodes of two workers in network namespaces of their own share one store; each connection of a
test lands on the next node. Left out are tests of what only one worker or one process can show;
those of followers write to a store of their own, those of one plain socket need its worker.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.nodes.support.network import problem
from tests.support.server import BEHIND, REPOSITORY

SUITE = (
    "tests/ingest/test_session_v1_socket.py",
    "tests/ingest/test_session_v1_speaker.py",
    "tests/ingest/test_listen.py",
    "tests/ingest/test_listen_log.py",
    "tests/ingest/test_listen_others.py",
    "tests/ingest/test_listen_workers.py",
)
SOCKET, SPEAKER, LISTEN, LOG, *_ = SUITE
LEFT_OUT = (
    # They write to a store of their own.
    f"{SOCKET}::test_what_was_missed_is_replayed",
    # What a worker has taken and not finished is known to that worker.
    f"{SOCKET}::test_a_lost_speaker_goes_on_where_it_was",
    f"{SPEAKER}::test_words_that_come_again_after_a_loss_are_heard_once",
    # Who listens without the log is owed nothing by other workers, and keeps no recognizer there.
    f"{LISTEN}::test_who_is_lost_finds_turns_going_on",
    f"{LISTEN}::test_a_service_that_drops_while_the_page_is_away",
    # A node's metrics count what its own workers have.
    f"{SPEAKER}::test_who_comes_again_while_its_last_words_are_awaited_is_counted_right",
    # Turns of the plain socket are counted by a worker.
    f"{LOG}::test_what_was_missed_is_told_before_anything_else",
    # They fill, stop or kill their one server.
    f"{SOCKET}::test_a_full_worker_refuses_before_the_upgrade_and_admins_are_refused",
    f"{SPEAKER}::test_a_stop_says_drain_finishes_what_was_said_and_closes_with_1012",
    f"{LISTEN}::test_a_stop_sends_clients_away",
)


@pytest.mark.skipif(problem() is not None, reason=str(problem()))
@pytest.mark.timeout(150)
def test_the_sockets_work_on_any_node() -> None:
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", *SUITE),
            *(part for name in LEFT_OUT for part in ("--deselect", name)),
        ],
        cwd=REPOSITORY,
        env={**os.environ, BEHIND: "1"},
        capture_output=True,
        text=True,
        timeout=140,
    )
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
