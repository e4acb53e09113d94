"""Any order of operations gives what a model in plain Python says, on both engines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.errors import Conflict, HistoryLost, SessionDeleted, StaleFence
from edge.session.store.interface import Draft, Grant, SessionStore

TRACKS = st.integers(0, 1)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), TRACKS),
        st.tuples(st.just("append"), st.integers(0, 5)),
        st.tuples(st.just("note"), st.just(0)),
        st.tuples(st.just("clear"), st.just(0)),
        st.tuples(st.just("put"), st.integers(0, 3)),
        st.tuples(st.just("delete"), st.just(0)),
    ),
    max_size=25,
)


class Model:
    """One session as it should be."""

    def __init__(self, store: SessionStore, name: str) -> None:
        self.store = store
        self.name = name
        self.log: list[bytes] = []
        self.tail = 1
        self.grants: list[tuple[int, Grant, int]] = []
        self.history = 0
        self.version = 0
        self.state = "none"

    def refusal(self, track: int, grant: Grant, history: int) -> type[Exception] | None:
        if self.state == "deleted":
            return SessionDeleted
        if history != self.history:
            return HistoryLost
        newest = [held for number, held, _ in self.grants if number == track][-1]
        return None if newest is grant else StaleFence

    async def step(self, name: str, number: int) -> None:
        try:
            await getattr(self, name)(number)
        except SessionDeleted:
            assert self.state == "deleted"
            return
        assert self.state != "deleted" or name in ("delete", "append")

    async def open(self, track: int) -> None:
        grant = await self.store.open_track(self.name, f"t{track}")
        assert all(grant.fence > older.fence for _, older, _ in self.grants)
        self.grants.append((track, grant, self.history))
        self.state = "there"

    async def append(self, which: int) -> None:
        if not self.grants:
            return
        track, grant, history = self.grants[which % len(self.grants)]
        expected = self.refusal(track, grant, history)
        body = b"%d" % len(self.log)
        try:
            offset = await self.store.append(grant, [Draft("final", body)])
        except (SessionDeleted, HistoryLost, StaleFence) as error:
            assert type(error) is expected
            return
        assert expected is None
        self.log.append(body)
        assert offset == len(self.log)

    async def note(self, _: int) -> None:
        assert await self.store.note(self.name, [Draft("event", b"n")]) == len(self.log) + 1
        self.log.append(b"n")
        self.state = "there"

    async def clear(self, _: int) -> None:
        await self.store.clear(self.name)
        self.tail, self.history, self.state = len(self.log) + 1, self.history + 1, "there"

    async def put(self, version: int) -> None:
        try:
            assert await self.store.put(self.name, "f", "k", b"v", version) == version + 1
        except Conflict as conflict:
            assert conflict.version == self.version != version
            return
        assert self.version == version
        self.version, self.state = version + 1, "there"

    async def delete(self, _: int) -> None:
        assert await self.store.delete(self.name) == (self.state == "there")
        if self.state == "there":
            self.state = "deleted"

    async def check(self) -> None:
        page = await self.store.read(self.name, 0)
        if self.state != "there":
            assert page is None
            return
        assert page is not None
        assert (page.head.tail, page.head.head) == (self.tail, len(self.log))
        bodies = [(entry.offset, entry.body) for entry in page.entries]
        assert bodies == list(enumerate(self.log, 1))[self.tail - 1 :]


def test_any_order_of_operations(make_store: Callable[[], SessionStore]) -> None:
    with asyncio.Runner() as runner:
        store = make_store()
        runner.run(store.open())
        count = 0

        @settings(
            max_examples=60,
            deadline=None,
            suppress_health_check=[HealthCheck.function_scoped_fixture],
        )
        @given(STEPS)
        def run(steps: list[tuple[str, int]]) -> None:
            nonlocal count
            count += 1

            async def walk() -> None:
                model = Model(store, f"s{count}")
                for name, number in steps:
                    await model.step(name, number)
                    await model.check()

            runner.run(walk())

        run()
        runner.run(store.close())
