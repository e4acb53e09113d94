"""Bodies of requests: what they may cost, and whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from edge.api import bodies
from edge.api.bodies import Bodies
from edge.api.http import MAX_BODY_BYTES, ApiError

LARGE = 10 * MAX_BODY_BYTES


class Arriving:
    """The stream of a request whose body comes in parts."""

    def __init__(self, *parts: bytes, ends: bool = True) -> None:
        self.request_max_size = 1
        self.keep_alive = True
        self._parts = parts
        self._ends = ends

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part
        if not self._ends:
            await asyncio.Event().wait()


def request(stream: Arriving) -> Any:
    return SimpleNamespace(stream=stream)


async def test_a_body_is_held_while_it_is_worked_on() -> None:
    taken = Bodies()
    async with taken.read(request(Arriving(b"ab", b"c")), LARGE) as body:
        assert (body, taken.held_bytes) == (b"abc", 3)
    assert taken.held_bytes == 0


async def test_large_bodies_beyond_the_bound_are_refused_and_small_ones_are_not() -> None:
    taken = Bodies(LARGE)
    first = request(Arriving(bytes(LARGE)))
    second = Arriving(bytes(MAX_BODY_BYTES + 1))
    async with taken.read(first, LARGE):
        with pytest.raises(ApiError) as error:
            async with taken.read(request(second), LARGE):
                raise AssertionError("there was no room")
        assert (error.value.status, error.value.body.code) == (503, "busy")
        assert not second.keep_alive
        async with taken.read(request(Arriving(bytes(MAX_BODY_BYTES))), LARGE) as small:
            assert len(small) == MAX_BODY_BYTES
        assert taken.held_bytes == LARGE
    async with taken.read(request(Arriving(bytes(LARGE))), LARGE):
        pass
    assert taken.held_bytes == 0


async def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "DEADLINE_S", 0.01)
    taken, stream = Bodies(), Arriving(b"{", ends=False)
    with pytest.raises(ApiError) as error:
        async with taken.read(request(stream), LARGE):
            raise AssertionError("it never ended")
    assert (error.value.status, error.value.body.code) == (408, "too_slow")
    assert (taken.held_bytes, stream.keep_alive, stream.request_max_size) == (0, False, 1)


async def test_work_that_fails_frees_its_room() -> None:
    taken = Bodies()
    with pytest.raises(ValueError, match="no"):
        async with taken.read(request(Arriving(b"abc")), LARGE):
            raise ValueError("no")
    assert taken.held_bytes == 0
