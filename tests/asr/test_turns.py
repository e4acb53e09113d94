"""Work that can wait gets its turn: a little in each turn of the event loop, oldest first."""

from __future__ import annotations

import asyncio
import gc
import weakref

from edge.asr.turns import AT_ONCE, Turns


class Laps:
    """Counts turns of the event loop."""

    def __init__(self) -> None:
        self.count = 0
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_soon(self._next)

    def _next(self) -> None:
        self.count += 1
        self._handle = self._loop.call_soon(self._next)

    def stop(self) -> None:
        self._handle.cancel()


async def test_so_many_slices_are_done_in_a_turn_of_the_loop_oldest_first() -> None:
    turns, laps = Turns.here(), Laps()
    done: list[tuple[int, int]] = []

    async def work(number: int) -> None:
        await turns.mine()
        done.append((laps.count, number))

    async with asyncio.TaskGroup() as group:
        for number in range(5 * AT_ONCE):
            group.create_task(work(number))
    laps.stop()
    assert [number for _, number in done] == list(range(5 * AT_ONCE))
    in_lap = [sum(lap == each for lap, _ in done) for each in {lap for lap, _ in done}]
    assert max(in_lap) <= AT_ONCE


async def test_who_has_much_to_do_lets_others_in_between() -> None:
    turns = Turns.here()
    done: list[str] = []

    async def work(name: str, slices: int) -> None:
        for _ in range(slices):
            await turns.mine()
            done.append(name)

    async with asyncio.TaskGroup() as group:
        for name in "abcd":
            group.create_task(work(name, 10))
    for at in range(0, len(done), 4):
        assert sorted(done[at : at + 4]) == list("abcd")


async def test_who_gives_up_waiting_holds_nobody_up_and_takes_no_turn() -> None:
    turns, laps = Turns.here(), Laps()
    gone = [asyncio.ensure_future(turns.mine()) for _ in range(100)]
    await asyncio.sleep(0)
    for waiter in gone[1:]:
        waiter.cancel()
    began = laps.count
    await asyncio.wait_for(turns.mine(), 5)
    laps.stop()
    assert laps.count - began < 10
    await asyncio.gather(*gone, return_exceptions=True)
    await asyncio.wait_for(turns.mine(), 5)


async def test_all_gone_leaves_the_queue_working() -> None:
    turns = Turns.here()
    gone = [asyncio.ensure_future(turns.mine()) for _ in range(3)]
    await asyncio.sleep(0)
    for waiter in gone:
        waiter.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    await asyncio.wait_for(asyncio.gather(turns.mine(), turns.mine(), turns.mine()), 5)


def test_each_loop_has_a_queue_of_its_own_that_goes_with_it() -> None:
    async def meet() -> Turns:
        await Turns.here().mine()
        return Turns.here()

    loops = [asyncio.new_event_loop() for _ in range(2)]
    queues = [loop.run_until_complete(meet()) for loop in loops]
    assert queues[0] is not queues[1]
    gone = [weakref.ref(each) for each in (*loops, *queues)]
    for loop in loops:
        loop.close()
    del loop, loops, queues
    gc.collect()
    assert [each() for each in gone] == [None] * 4
