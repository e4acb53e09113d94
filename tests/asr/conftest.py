"""Connections of recognizers are proved on the event loop that workers run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

ON_UVLOOP = ("test_dummy", "test_openai_realtime", "test_registry", "test_supervisor")


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Which event loop a coroutine test runs on."""
    if item.path.stem in ON_UVLOOP:
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.SelectorEventLoop}
