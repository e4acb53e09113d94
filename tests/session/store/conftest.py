"""Every test of the contract runs on both engines, on real servers and files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from edge.session.store.interface import SessionStore
from edge.session.store.opening import open_store
from tests.session.store.support.valkey import Valkey

ENGINES = ("sqlite", "redis")


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """One server for all tests that do not break it; each uses sessions of its own."""
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=ENGINES)
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the store of a test is, as ``open_store`` wants it."""
    if request.param == "sqlite":
        return str(tmp_path / "sessions.db")
    server: Valkey = request.getfixturevalue("valkey")
    server.flush()
    return server.url


@pytest.fixture
def make_store(location: str) -> Callable[[], SessionStore]:
    """Another worker's store at the same place, not opened yet."""
    return lambda: open_store(location)


@pytest.fixture
async def store(make_store: Callable[[], SessionStore]) -> AsyncIterator[SessionStore]:
    async with make_store() as opened:
        yield opened
