"""When a service that says nothing counts as dead."""

from __future__ import annotations

import asyncio

import pytest

from edge.asr.interface import AudioWanted, StreamRequest
from edge.asr.vigil import LATE_S, Vigil
from tests.asr.support.scripted import ScriptedStream

LIMIT_S = 3.0


@pytest.fixture
async def stream() -> ScriptedStream:
    await asyncio.sleep(0)
    made = ScriptedStream(AudioWanted(), StreamRequest(track="tag"), lambda event: None)
    made.answers_probes = False
    made.owes = True
    return made


def watch(vigil: Vigil, stream: ScriptedStream, from_s: float, until_s: float) -> float | None:
    """Look as often as it asks for; when it gave the service up."""
    now_s = from_s
    while now_s < until_s:
        if vigil.look(now_s, stream) is not None:
            return now_s
        now_s += vigil.next_s
    return None


async def test_a_service_quiet_by_design_is_asked_and_given_as_long_again(
    stream: ScriptedStream,
) -> None:
    given_up_s = watch(Vigil(LIMIT_S), stream, 100, 200)
    assert given_up_s == pytest.approx(100 + 2 * LIMIT_S)
    assert stream.probes == 1


async def test_a_talkative_one_is_given_up_without_asking(stream: ScriptedStream) -> None:
    stream.silent_limit_s = 2.0
    assert watch(Vigil(LIMIT_S), stream, 100, 200) == pytest.approx(102)
    assert stream.probes == 0


async def test_silence_before_something_was_owed_does_not_count(stream: ScriptedStream) -> None:
    vigil = Vigil(LIMIT_S)
    stream.owes = False
    assert watch(vigil, stream, 100, 200) is None
    stream.owes = True
    assert watch(vigil, stream, 200, 300) == pytest.approx(200 + 2 * LIMIT_S)


async def test_anything_it_says_is_a_sign_of_life(stream: ScriptedStream) -> None:
    vigil = Vigil(LIMIT_S)
    for moment in range(100, 200, 4):
        assert watch(vigil, stream, moment, moment + 4) is None
        stream.heard_s = moment + 4
    assert watch(vigil, stream, 200, 300) is not None


async def test_one_that_cannot_be_asked_is_not_judged(stream: ScriptedStream) -> None:
    stream.probe = lambda: False  # type: ignore[method-assign]
    assert watch(Vigil(LIMIT_S), stream, 100, 1000) is None


@pytest.mark.parametrize("own_limit_s", [None, 8.0])
async def test_zero_never_judges_any(stream: ScriptedStream, own_limit_s: float | None) -> None:
    """For servers of an operator's own that are quieter than the vendor's."""
    stream.silent_limit_s = own_limit_s
    vigil = Vigil(0)
    assert watch(vigil, stream, 100, 1000) is None
    vigil.hurry(10.0)
    assert watch(vigil, stream, 1000, 2000) is None


async def test_a_worker_that_stood_still_does_not_blame_the_service(
    stream: ScriptedStream,
) -> None:
    """What the service has said meanwhile may not have been read yet."""
    stream.silent_limit_s = LIMIT_S
    vigil = Vigil(LIMIT_S)
    assert vigil.look(100, stream) is None
    assert vigil.look(100 + vigil.next_s + LATE_S + 5, stream) is None
    assert vigil.look(106 + vigil.next_s, stream) is None


async def test_a_track_that_ends_leaves_time_to_say_it_all_again(stream: ScriptedStream) -> None:
    stream.silent_limit_s = 8.0
    vigil = Vigil(LIMIT_S)
    vigil.hurry(10.0)
    assert watch(vigil, stream, 100, 200) == pytest.approx(102)
