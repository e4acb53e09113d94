"""What only Redis can do: restart, lose what it held, be away for a while."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edge.errors import HistoryLost, StoreUnavailable
from edge.session.store.interface import Draft
from edge.session.store.opening import open_store
from tests.session.store.support.valkey import Valkey

DRAFT = [Draft("final", b"x")]


async def test_a_restart_that_may_have_lost_the_end_begins_a_new_epoch(tmp_path: Path) -> None:
    server = Valkey(tmp_path)
    server.start()
    try:
        async with open_store(server.url) as store:
            grant = await store.open_track("s", "t")
            await store.append(grant, DRAFT)
            server.kill()
            server.start()
            with pytest.raises(HistoryLost):
                await store.append(grant, DRAFT)
            again = await store.open_track("s", "t")
            assert again.epoch != grant.epoch
            assert await store.append(again, DRAFT) == again.acked
    finally:
        server.kill()


async def test_with_full_durability_a_killed_server_loses_nothing(tmp_path: Path) -> None:
    server = Valkey(tmp_path, "--appendfsync", "always")
    server.start()
    try:
        async with open_store(server.url, "full") as store:
            grant = await store.open_track("s", "t")
            for count in range(1, 6):
                assert await store.append(grant, DRAFT) == count
                server.kill()
                server.start()
            head = await store.head("s")
            assert head is not None and (head.epoch, head.head) == (grant.epoch, 5)
    finally:
        server.kill()


async def test_full_durability_on_a_server_without_it_is_refused(tmp_path: Path) -> None:
    server = Valkey(tmp_path)
    server.start()
    try:
        with pytest.raises(StoreUnavailable, match="appendfsync always"):
            await open_store(server.url, "full").open()
    finally:
        server.kill()


async def test_a_log_that_was_lost_is_noticed_by_its_writer(tmp_path: Path) -> None:
    server = Valkey(tmp_path, "--appendfsync", "always")
    server.start()
    try:
        async with open_store(server.url, "full") as store:
            grant = await store.open_track("s", "t")
            await store.append(grant, DRAFT)
            server.flush()
            with pytest.raises(HistoryLost):
                await store.append(grant, DRAFT)
            assert await store.append(await store.open_track("s", "t"), DRAFT) == 1
    finally:
        server.kill()


async def test_a_call_waits_for_a_server_that_comes_back(tmp_path: Path) -> None:
    server = Valkey(tmp_path, "--appendfsync", "always")
    server.start()
    try:
        async with open_store(server.url, "full") as store:
            grant = await store.open_track("s", "t")
            server.kill()
            waiting = asyncio.create_task(store.append(grant, DRAFT))
            await asyncio.sleep(0.3)
            assert not waiting.done()
            server.start()
            assert await waiting == 1
    finally:
        server.kill()
