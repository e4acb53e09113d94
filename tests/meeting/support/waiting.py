"""Waiting for what will come true."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], object | Awaitable[object]], limit_s: float = 10.0) -> None:
    """Return once the condition holds; ``TimeoutError`` when it does not in time."""
    async with asyncio.timeout(limit_s):
        while True:
            held = condition()
            if await held if inspect.isawaitable(held) else held:
                return
            await asyncio.sleep(0.01)
