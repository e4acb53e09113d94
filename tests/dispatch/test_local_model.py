"""Whatever happens to the embedded queue, every message is delivered, once and in order."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dispatch.local_queue import LocalQueue, LocalRow
from tests.dispatch.support.targets import envelope_of

T = TypeVar("T")
SESSIONS = ("red", "green", "blue")
OWNERS = ("a", "b")


class Queue(RuleBasedStateMachine):
    """Two owners at one queue; ``waiting`` is what a list of each session would hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.queues = [LocalQueue(Path(self.folder.name) / "q.db") for _ in OWNERS]
        self.put_count = dict.fromkeys(SESSIONS, 0)
        self.waiting: dict[str, list[int]] = {name: [] for name in SESSIONS}
        self.buried: dict[str, list[int]] = {name: [] for name in SESSIONS}
        self.leased: dict[str, tuple[int, list[LocalRow]]] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        for queue in self.queues:
            self.run(queue.close())
        self.runner.close()
        self.folder.cleanup()

    @rule(who=st.sampled_from((0, 1)), name=st.sampled_from(SESSIONS), count=st.integers(1, 4))
    def put(self, who: int, name: str, count: int) -> None:
        """New messages after the last that is known already."""
        last = self.put_count[name]
        envelopes = [envelope_of(name, last + n) for n in range(bool(not last), count + 1)]
        assert self.run(self.queues[who].put(envelopes)) == len(envelopes)
        self.put_count[name] += count
        self.waiting[name] += range(last + 1, last + count + 1)

    @rule(who=st.sampled_from((0, 1)), limit=st.integers(1, 6))
    def claim(self, who: int, limit: int) -> None:
        rows = self.run(self.queues[who].claim(OWNERS[who], limit, 1000.0))
        free = [name for name in SESSIONS if name not in self.leased and self.waiting[name]]
        assert bool(rows) == bool(free)
        assert len(rows) <= limit
        for name in {row.session for row in rows}:
            mine = [row for row in rows if row.session == name]
            assert name in free, "one owner at a time"
            assert [row.offset for row in mine] == self.waiting[name][: len(mine)]
            self.leased[name] = (who, mine)

    @rule(name=st.sampled_from(SESSIONS), count=st.integers(1, 4))
    def ack(self, name: str, count: int) -> None:
        if name not in self.leased:
            return
        who, rows = self.leased[name]
        done, left = rows[:count], rows[count:]
        self.run(self.queues[1 - who].ack(OWNERS[1 - who], done))
        self.run(self.queues[who].ack(OWNERS[who], done))
        del self.waiting[name][: len(done)]
        self.keep(name, who, left)

    @rule(name=st.sampled_from(SESSIONS))
    def bury(self, name: str) -> None:
        if name not in self.leased:
            return
        who, rows = self.leased[name]
        self.run(self.queues[who].bury(OWNERS[who], rows[0], "no"))
        self.buried[name].append(self.waiting[name].pop(0))
        self.keep(name, who, rows[1:])

    @rule(name=st.sampled_from(SESSIONS))
    def retry(self, name: str) -> None:
        if name not in self.leased:
            return
        who, rows = self.leased.pop(name)
        self.run(self.queues[who].retry(OWNERS[who], rows[0], 0.0))

    @rule(who=st.sampled_from((0, 1)))
    def redrive(self, who: int) -> None:
        """They go to the end, in the order in which they were given up."""
        letters = self.run(self.queues[who].dead_letters())
        assert self.run(self.queues[who].redrive(letters)) == len(letters)
        for letter in letters:
            self.waiting[letter.row.session].append(letter.row.offset)
            self.buried[letter.row.session].remove(letter.row.offset)
        assert not any(self.buried.values())

    def keep(self, name: str, who: int, left: list[LocalRow]) -> None:
        if left:
            self.leased[name] = (who, left)
        else:
            del self.leased[name]

    @invariant()
    def nothing_is_lost(self) -> None:
        waiting = sum(map(len, self.waiting.values()))
        assert self.run(self.queues[0].outbox_size()) == waiting


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
