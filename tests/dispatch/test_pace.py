"""A pace leaves the loop to others, and does not hold up those who are alone on it."""

from __future__ import annotations

import time

from dispatch.pace import REST_S, Pace

STEPS = 20
STEP_S = 0.001


def work() -> None:
    until_s = time.thread_time() + STEP_S
    while time.thread_time() < until_s:
        pass


async def took_s(pace: Pace) -> float:
    began_s = time.monotonic()
    for _ in range(STEPS):
        await pace.turn()
        work()
    return time.monotonic() - began_s


async def test_a_quarter_of_the_loop_rests_three_times_as_long_as_it_works() -> None:
    assert await took_s(Pace(0.25)) > 3 * STEPS * STEP_S


async def test_rests_are_bounded_however_busy_the_loop_is() -> None:
    pace = Pace(0.01)
    await pace.turn()
    work()
    began_s = time.thread_time()
    at_s = time.monotonic()
    await pace.turn()
    assert time.thread_time() - began_s < REST_S
    assert time.monotonic() - at_s >= REST_S * 0.9


async def test_the_whole_loop_never_rests() -> None:
    pace = Pace()
    began_s = time.thread_time()
    for _ in range(1000):
        await pace.turn()
    assert time.thread_time() - began_s < 0.1
