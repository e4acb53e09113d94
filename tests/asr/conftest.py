"""Recognizers are proved on the event loop that workers run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Which event loop a coroutine test runs on."""
    return {"uvloop": uvloop.new_event_loop}
