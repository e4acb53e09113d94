"""Every test of the contract runs on files, on a real S3 service, and on the spool before it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from edge.objects.interface import ObjectStore
from edge.objects.opening import open_objects
from edge.objects.settings import ObjectSettings
from edge.objects.spool import SpooledStore
from tests.objects.support.seaweed import Seaweed

ENGINES = ("files", "fsync", "s3", "spool")


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """One server for all tests of a file; whoever stops it starts it again."""
    server = Seaweed(tmp_path_factory.mktemp("seaweed"))
    try:
        server.start()
        server.ready()
        yield server
    finally:
        server.kill()


@pytest.fixture(params=ENGINES)
async def given(request: pytest.FixtureRequest) -> ObjectSettings:
    """Where the store of a test is."""
    if request.param in ("files", "fsync"):
        return ObjectSettings(objects_fsync=request.param == "fsync")
    server: Seaweed = request.getfixturevalue("seaweed")
    return server.settings(spool_max_bytes=1 << 30 if request.param == "spool" else 0)


@pytest.fixture
async def store(given: ObjectSettings, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    async with open_objects(given, tmp_path) as opened:
        yield opened


@pytest.fixture
def behind_spool(seaweed: Seaweed) -> ObjectSettings:
    """A bucket behind a spool, whose outages are found soon."""
    return seaweed.settings(objects_deadline_s=1.0)


@pytest.fixture
async def spooled(behind_spool: ObjectSettings, tmp_path: Path) -> AsyncIterator[SpooledStore]:
    async with open_objects(behind_spool, tmp_path) as store:
        assert isinstance(store, SpooledStore)
        yield store


@pytest.fixture
async def bucket(behind_spool: ObjectSettings, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    """The same bucket without a spool, with patience."""
    plain = msgspec.structs.replace(behind_spool, spool_max_bytes=0, objects_deadline_s=20.0)
    async with open_objects(plain, tmp_path) as store:
        yield store


@pytest.fixture
def frozen(seaweed: Seaweed, bucket: ObjectStore) -> Iterator[Seaweed]:
    """The server answers nothing, until it is thawed."""
    seaweed.freeze()
    yield seaweed
    seaweed.thaw()
