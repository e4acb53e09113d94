"""What Redis may lose, and what it may not: replicas, Sentinel, snapshots, and being away."""

from __future__ import annotations

import asyncio
import shutil
import signal
import ssl
from pathlib import Path

import pytest
import trustme

from edge.errors import HistoryLost, StoreUnavailable
from edge.session.store.follower import Followers
from edge.session.store.interface import Draft, Entry
from edge.session.store.opening import open_store
from edge.session.store.redis import RedisStore
from tests.session.store.support.failover import (
    FULL,
    QUICK_SYNC,
    door,
    follow,
    pair,
    promote,
    sentinel,
    server,
    wait_until,
)

DRAFT = [Draft("final", b"x")]
DRAFT_EVENT = [Draft("event", b"x")]
AWAY_S = 2.5


async def test_a_replica_that_lacks_the_tail_begins_a_new_epoch(tmp_path: Path) -> None:
    """Even when the log has grown beyond what its followers had seen: no silent gap."""
    with pair(tmp_path) as (primary, replica):
        async with door(primary) as way, open_store(f"redis://127.0.0.1:{way.port}") as store:
            grant = await store.open_track("s", "t")
            await store.append(grant, DRAFT)
            wait_until(lambda: replica.client.exists("edgescribe:{s}:l") == 1)
            replica.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
            for _ in range(5):
                await store.append(grant, DRAFT)
            async with Followers(store).follow("s") as follower:
                assert len(await follower.next()) == 6
                primary.kill()
                replica.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
                promote(replica)
                way.lead_to(replica)
                other = await store.open_track("s", "other")
                await store.append(other, DRAFT * 20)
                assert other.epoch != grant.epoch
                with pytest.raises(HistoryLost):
                    async with asyncio.timeout(10):
                        await follower.next()
            with pytest.raises(HistoryLost):
                await store.append(grant, DRAFT)


async def test_full_durability_shows_nothing_that_a_replica_lacks(tmp_path: Path) -> None:
    """Writers and followers get only what a failover cannot take away."""
    shown: set[tuple[int, bytes]] = set()
    with pair(tmp_path, *FULL) as (primary, replica):
        async with (
            door(primary) as way,
            RedisStore(f"redis://127.0.0.1:{way.port}", "full", 0.8) as store,
        ):
            grant = await store.open_track("s", "t")

            async def speak() -> None:
                for number in range(100_000):
                    body = b"%d" % number
                    shown.add((await store.append(grant, [Draft("final", body)]), body))

            async def listen() -> None:
                async with Followers(store).follow("s") as follower:
                    while True:
                        got: list[Entry] = list(await follower.next())
                        shown.update((entry.offset, entry.body) for entry in got)

            tasks = [asyncio.create_task(speak()), asyncio.create_task(listen())]
            async with asyncio.timeout(30):
                while len(shown) < 100:
                    await asyncio.sleep(0.01)
            replica.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
            await asyncio.wait(tasks[:1], timeout=10)
            assert tasks[0].done() and isinstance(tasks[0].exception(), StoreUnavailable)
            tasks[1].cancel()
            await asyncio.wait(tasks)
            primary.kill()
            replica.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
            promote(replica)
            way.lead_to(replica)
            log: list[tuple[int, bytes]] = []
            while (page := await store.read("s", len(log))) and page.entries:
                log += [(entry.offset, entry.body) for entry in page.entries]
            assert shown <= set(log)
            assert [offset for offset, _ in log] == list(range(1, len(log) + 1))


async def test_a_replica_counts_from_when_it_comes_until_it_goes(tmp_path: Path) -> None:
    primary = server(tmp_path / "a", *FULL, *QUICK_SYNC)
    replica = server(tmp_path / "b", *FULL, *QUICK_SYNC)
    try:
        async with RedisStore(primary.url, "full", 0.8) as store:
            grant = await store.open_track("s", "t")
            assert await store.append(grant, DRAFT) == 1
            follow(replica, primary)
            assert await store.append(grant, DRAFT) == 2
            assert replica.client.hget("edgescribe:{s}:h", "head") == b"2"
            replica.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
            with pytest.raises(StoreUnavailable):
                await store.append(grant, DRAFT)
            replica.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
            assert await store.append(grant, DRAFT) == 3
            replica.kill()
            wait_until(lambda: not primary.client.info("replication")["connected_slaves"])
            assert await store.append(grant, DRAFT) == 4
    finally:
        primary.kill()
        replica.kill()


async def test_sentinel_leads_to_the_promoted_replica(tmp_path: Path) -> None:
    with pair(tmp_path) as (primary, _), sentinel(tmp_path / "sentinel", primary) as port:
        url = f"redis+sentinel://127.0.0.1:{port}/mymaster"
        async with open_store(url) as store:
            grant = await store.open_track("s", "t")
            await store.append(grant, DRAFT)
            async with Followers(store).follow("s") as follower:
                assert len(await follower.next()) == 1
                primary.kill()
                async with asyncio.timeout(20):
                    while True:
                        try:
                            again = await store.open_track("s", "t")
                            break
                        except StoreUnavailable:
                            continue
                assert again.epoch != grant.epoch
                await store.append(again, DRAFT)
                with pytest.raises(HistoryLost):
                    async with asyncio.timeout(10):
                        await follower.next()


async def test_an_older_snapshot_put_back_begins_a_new_epoch(tmp_path: Path) -> None:
    folder, options = tmp_path / "a", ("--appendonly", "no")
    node = server(folder, *options)
    try:
        async with open_store(node.url) as store:
            grant = await store.open_track("s", "t")
            await store.append(grant, DRAFT)
            node.client.save()
            shutil.copy(folder / "dump.rdb", tmp_path / "kept")
            await store.append(grant, DRAFT)
            node.kill()
            shutil.copy(tmp_path / "kept", folder / "dump.rdb")
            node.start()
            head = await store.head("s")
            assert head is not None and head.head == 1 and head.epoch != grant.epoch
    finally:
        node.kill()


async def test_whoever_follows_proves_that_a_full_log_was_rolled_back(tmp_path: Path) -> None:
    """A server that says it keeps all is believed until somebody has seen more."""
    folder = tmp_path / "a"
    node = server(folder, *FULL)
    try:
        async with open_store(node.url, "full") as store:
            grant = await store.open_track("s", "t")
            await store.append(grant, DRAFT)
            node.kill()
            shutil.copytree(folder, tmp_path / "kept")
            node.start()
            await store.append(grant, DRAFT)
            async with Followers(store).follow("s") as follower:
                assert len(await follower.next()) == 2
                node.kill()
                shutil.rmtree(folder)
                shutil.copytree(tmp_path / "kept", folder)
                node.start()
                with pytest.raises(HistoryLost):
                    async with asyncio.timeout(10):
                        await follower.next()
            head = await store.head("s")
            assert head is not None and head.head == 1 and head.epoch != grant.epoch
    finally:
        node.kill()


async def test_a_server_that_does_not_answer_for_long_loses_nothing(tmp_path: Path) -> None:
    """Callers are told in time, and the same store goes on when it answers again."""
    node = server(tmp_path / "a", *FULL)
    try:
        async with RedisStore(node.url, "full", 0.5) as store:
            grant = await store.open_track("s", "t")
            await store.append(grant, DRAFT)
            async with Followers(store).follow("s") as follower:
                assert len(await follower.next()) == 1
                node.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
                asyncio.get_running_loop().call_later(
                    AWAY_S,
                    node.process.send_signal,  # type: ignore[union-attr]
                    signal.SIGCONT,
                )
                refused = 0
                while grant.acked == 1:
                    try:
                        await store.append(grant, DRAFT)
                    except StoreUnavailable:
                        refused += 1
                assert refused >= 4
                async with asyncio.timeout(5):
                    assert [entry.offset for entry in await follower.next()] == [2]
            head = await store.head("s")
            assert head is not None and (head.epoch, head.head) == (grant.epoch, 2)
    finally:
        node.kill()


async def test_a_call_that_is_given_up_leaves_the_answers_of_others_alone(tmp_path: Path) -> None:
    """Scripts travel together: each caller still gets the answer to its own."""
    node = server(tmp_path / "a")
    try:
        async with open_store(node.url) as store:
            for number in range(60):
                await store.note(f"s{number}", DRAFT_EVENT * (number + 1))
            asked = [asyncio.create_task(store.head(f"s{number}")) for number in range(60)]
            for given_up in (0, 1):
                await asyncio.sleep(0)
                for task in asked[given_up::7]:
                    task.cancel()
            heads = await asyncio.gather(*asked, return_exceptions=True)
            for number, head in enumerate(heads):
                if number % 7 > 1:
                    assert not isinstance(head, BaseException) and head is not None
                    assert head.head == number + 1
    finally:
        node.kill()


async def test_a_server_that_hides_its_configuration_is_taken_at_its_word(tmp_path: Path) -> None:
    node = server(tmp_path / "a")
    try:
        node.client.execute_command(
            *("ACL", "SETUSER", "edge", "on", ">word", "~*", "&*", "+@all", "-config")
        )
        async with open_store(f"redis://edge:word@127.0.0.1:{node.port}", "full") as store:
            assert await store.append(await store.open_track("s", "t"), DRAFT) == 1
    finally:
        node.kill()


async def test_rediss_speaks_tls_and_trusts_no_stranger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(tls)
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(trusted)
    node = server(tmp_path / "a")
    try:
        async with door(node, tls) as way:
            url = f"rediss://localhost:{way.port}/0"
            with pytest.raises(StoreUnavailable):
                await RedisStore(url, "normal", 1.0).open()
            async with open_store(f"{url}?ssl_ca_certs={trusted}") as store:
                grant = await store.open_track("s", "t")
                async with Followers(store).follow("s") as follower, asyncio.timeout(5):
                    await store.append(grant, DRAFT)
                    assert len(await follower.next()) == 1
    finally:
        node.kill()
