"""Outages of an object store, and the waits of tests for their end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from edge.errors import ObjectsUnavailable
from edge.objects.interface import ObjectStore
from edge.objects.spool import SpooledStore

LOOK_S = 0.02
WITHIN_S = 30.0


async def until(holds: Callable[[], Awaitable[bool] | bool]) -> None:
    """Wait until ``holds``; what is away meanwhile does not hold yet."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                held = holds()
                if held if isinstance(held, bool) else await held:
                    return
            except ObjectsUnavailable:
                pass
            await asyncio.sleep(LOOK_S)


async def is_empty(store: ObjectStore) -> bool:
    """Whether nothing waits in a spool."""
    assert isinstance(store, SpooledStore)
    return (await store.waiting()).objects == 0
