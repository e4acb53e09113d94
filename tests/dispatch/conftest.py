"""Servers that the tests of the dispatcher share; each uses names of its own there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.dispatch.support.moto import Moto
from tests.session.store.support.valkey import Valkey


@pytest.fixture(scope="session")
def shared_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def moto() -> Iterator[Moto]:
    server = Moto()
    server.start()
    yield server
    server.kill()
