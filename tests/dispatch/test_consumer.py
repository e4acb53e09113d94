"""A consumer takes all of a queue, in order and once, whatever it holds, whatever the sink does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import valkey as valkey_client

from dispatch import DispatcherTranscriptionMessage, Envelope, Transport
from dispatch.errors import Unreachable
from dispatch.local_queue import LocalQueue
from dispatch.redis_stream import GROUP, partition_of
from dispatch.sources.interface import Source
from dispatch.sources.redis import RedisSource
from dispatch.sources.sqs import SqsSource
from dispatch.transports.binding import BindingTransport
from dispatch.transports.local import LocalTransport
from dispatch.transports.redis import RedisTransport
from dispatch.transports.sqs import SqsTransport
from tests.dispatch.support.moto import CREDENTIALS, REGION, Moto
from tests.dispatch.support.queues import (
    QUICK,
    Listener,
    consuming,
    envelopes,
    fill,
    in_order,
    until,
)
from tests.session.store.support.valkey import Valkey

SESSIONS = ("red", "green", "blue")
EACH = 25


class Queue(msgspec.Struct):
    """A queue from both sides; each call of ``source`` is another consumer's."""

    transport: Transport
    source: Callable[[], Source[Any]]


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """One node with all slots, which it serves after two seconds: while others are tested."""
    node = Valkey(tmp_path_factory.mktemp("cluster"), "--cluster-enabled", "yes")
    node.start()
    node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    yield node
    node.kill()


OURS = pytest.mark.parametrize("queue", ["local", "redis"], indirect=True)
EVERY = pytest.mark.parametrize("queue", ["local", "redis", "sqs"], indirect=True)


@pytest.fixture
async def queue(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Queue]:
    if request.param == "sqs":
        moto: Moto = request.getfixturevalue("moto")
        url = await make_queues(moto, tmp_path.name)
        made = Queue(
            SqsTransport(url, region=REGION, endpoint_url=moto.url, credentials=CREDENTIALS),
            lambda: SqsSource(url, REGION, moto.url, credentials=CREDENTIALS, long_poll_s=1),
        )
    elif request.param == "redis":
        valkey: Valkey = request.getfixturevalue("shared_valkey")
        made = Queue(
            RedisTransport(valkey.url, tmp_path.name),
            lambda: RedisSource(valkey.url, tmp_path.name, lease_s=1.0, block_s=0.05),
        )
    else:
        path = tmp_path / "queue.db"
        made = Queue(LocalTransport(LocalQueue(path)), lambda: LocalQueue(path))
    async with made.transport:
        yield made


async def make_queues(moto: Moto, name: str) -> str:
    """A FIFO queue whose refused messages go to another."""
    url, dead = await moto.make_queue(f"{name}.fifo"), await moto.make_queue(f"{name}-dead.fifo")
    async with moto.client() as client:
        about = await client.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])
        policy = {"deadLetterTargetArn": about["Attributes"]["QueueArn"], "maxReceiveCount": "1000"}
        await client.set_queue_attributes(
            QueueUrl=url, Attributes={"RedrivePolicy": json.dumps(policy)}
        )
    return url


@OURS
async def test_every_session_arrives_whole_and_in_order(queue: Queue) -> None:
    await fill(queue.transport, SESSIONS, EACH)
    listener = Listener()
    async with consuming(queue.source(), BindingTransport(listener)) as consumer:
        await until(lambda: consumer.counts.sent == len(SESSIONS) * EACH)
    assert listener.texts() == in_order(SESSIONS, EACH)


@OURS
async def test_two_consumers_share_the_sessions_and_keep_their_order(queue: Queue) -> None:
    sessions = [f"s{number}" for number in range(20)]
    listener = Listener()
    async with (
        consuming(queue.source(), BindingTransport(listener)) as one,
        consuming(queue.source(), BindingTransport(listener)) as other,
    ):
        for number in range(10):
            await fill(queue.transport, sessions, 5, first=5 * number)
            await asyncio.sleep(0.05)
        await until(lambda: one.counts.sent + other.counts.sent >= 20 * 50)
        # A partition is given away within a third of a lease.
        for first in range(50, 1000, 5):
            if one.counts.sent and other.counts.sent:
                break
            await fill(queue.transport, sessions, 5, first)
            await asyncio.sleep(0.1)
        assert one.counts.sent and other.counts.sent
    for session, heard in listener.texts().items():
        # Who is stalled for longer than a lease may have sent what another sends again.
        firsts = list(dict.fromkeys(heard))
        assert firsts == [str(number) for number in range(len(firsts))], session


@EVERY
async def test_a_poison_message_is_buried_and_can_be_redriven(queue: Queue) -> None:
    """Refused three times more; the others of its batch do not wait for it, its session does."""
    await fill(queue.transport, SESSIONS, 4)
    is_mended = False

    def judge(message: DispatcherTranscriptionMessage) -> bool:
        return is_mended or (message.session_id, message.text) != ("red", "2")

    listener = Listener(judge)
    source = queue.source()
    async with consuming(source, BindingTransport(listener)) as consumer:
        await until(lambda: consumer.counts.sent == 11)
        assert len(listener.refused) == 1 + QUICK.retrying.max_retries
        assert listener.texts()["red"] == ["0", "1", "3"]
        [letter] = await source.dead_letters()
        assert (letter.row.session, letter.row.offset) == ("red", 2)
        assert letter.reason == "the dispatcher answered without success"
        is_mended = True
        assert await source.redrive([letter]) == 1
        await until(lambda: consumer.counts.sent == 12)
        assert await source.dead_letters() == []
    assert listener.texts()["red"] == ["0", "1", "3", "2"]


@OURS
async def test_a_message_that_is_brought_twice_is_delivered_once(queue: Queue) -> None:
    listener = Listener()
    async with consuming(queue.source(), BindingTransport(listener)) as consumer:
        for _ in range(3):
            await queue.transport.send(envelopes("red", range(5)))
        await until(lambda: consumer.counts.sent == 5)
        # Another epoch is another log: its messages have the same numbers and are others.
        await queue.transport.send(envelopes("red", range(5), epoch="later"))
        await until(lambda: consumer.counts.sent == 10)
    assert listener.texts() == {"red": [*"0123401234"]}


@OURS
async def test_what_is_no_message_is_buried_and_comes_no_more(queue: Queue) -> None:
    garbage = [b"", b"\xff\xfe", b"null", b"[]", b'{"sessionId":1}', b'{"text":"no more"']
    bad = [Envelope(f"red:{n}", "red", body, 1, "e", 1) for n, body in enumerate(garbage)]
    await queue.transport.send([*bad, *envelopes("red", [6])])
    listener, source = Listener(), queue.source()
    async with consuming(source, BindingTransport(listener)) as consumer:
        await until(lambda: consumer.counts.sent == 1)
        assert consumer.intake_counts.garbage == len(bad)
        assert len(await source.dead_letters()) == len(bad)
    assert listener.texts() == {"red": ["6"]}


@OURS
async def test_a_sink_that_is_away_is_waited_for_without_limit(queue: Queue) -> None:
    """Many more failures than retries of a refusal; then all arrive, in order."""
    await fill(queue.transport, SESSIONS, 5)

    class Away(BindingTransport):
        is_away = True

        async def send(self, envelopes: Any) -> int:
            if self.is_away:
                raise Unreachable("away")
            return await super().send(envelopes)

    listener = Listener()
    sink, source = Away(listener), queue.source()
    async with consuming(source, sink) as consumer:
        await until(lambda: consumer.counts.retried > 12)
        assert listener.heard == []
        sink.is_away = False
        await until(lambda: consumer.counts.sent == 15)
        assert await source.dead_letters() == []
    assert listener.texts() == in_order(SESSIONS, 5)


@EVERY
async def test_a_stop_gives_back_what_was_not_delivered(queue: Queue) -> None:
    """The next consumer need not wait until a lease of 30 s has ended."""
    await fill(queue.transport, ("red",), 6)
    listener = Listener()
    started, go_on = asyncio.Event(), asyncio.Event()

    class Slow(BindingTransport):
        async def send(self, envelopes: Any) -> int:
            started.set()
            await go_on.wait()
            return await super().send(envelopes)

    async with consuming(queue.source(), Slow(listener)) as consumer:
        await started.wait()
        consumer.stop()
        go_on.set()
    assert consumer.counts.sent == 1
    async with consuming(queue.source(), BindingTransport(listener)) as successor:
        await until(lambda: successor.counts.sent == 5, within_s=5)
    assert listener.texts() == in_order(("red",), 6)


@OURS
async def test_a_batch_waits_to_become_full_but_not_for_ever(queue: Queue) -> None:
    sizes: list[int] = []

    class Batches(Transport):
        async def send(self, envelopes: Any) -> int:
            sizes.append(len(envelopes))
            return len(envelopes)

    plan = msgspec.structs.replace(QUICK, batch=4, batch_wait_s=0.6)
    async with consuming(queue.source(), Batches(), plan) as consumer:
        for number in range(4):
            await queue.transport.send(envelopes("red", [number]))
            await asyncio.sleep(0.01)
        await until(lambda: consumer.counts.sent == 4)
        assert sizes == [4]
        await queue.transport.send(envelopes("red", [4]))
        await until(lambda: consumer.counts.sent == 5)
    assert sizes == [4, 1]


async def test_what_others_write_into_the_stream_is_buried(
    shared_valkey: Valkey, tmp_path: Path
) -> None:
    """Entries without our fields, or whose fields are not what they should be."""
    partition = partition_of("red", tmp_path.name)
    fields = {"id": "red:x", "session": "red", "body": "{}", "attempt": "1", "epoch": "e"}
    client: Any = valkey_client.Valkey.from_url(shared_valkey.url)
    client.xadd(partition.messages, {"hello": "world"})
    client.xadd(partition.messages, fields | {"enqueued_ms": "1"})
    client.xadd(partition.messages, fields | {"id": "red:1", "enqueued_ms": "soon"})
    client.xadd(partition.messages, fields | {"session": b"\xff", "enqueued_ms": "1"})
    client.close()
    async with RedisTransport(shared_valkey.url, tmp_path.name) as transport:
        await fill(transport, ("red",), 1)
    listener, source = Listener(), RedisSource(shared_valkey.url, tmp_path.name, block_s=0.05)
    async with consuming(source, BindingTransport(listener)) as consumer:
        await until(lambda: consumer.counts.sent == 1)
        letters = await source.dead_letters()
        assert [letter.reason for letter in letters] == ["not an entry of the dispatch queue"] * 4
        assert await source.redrive(letters) == 0
    assert listener.texts() == {"red": ["0"]}


async def test_a_redis_that_went_away_and_lost_everything_is_read_on(tmp_path: Path) -> None:
    server = Valkey(tmp_path)
    server.start()
    try:
        listener = Listener()
        source = RedisSource(server.url, lease_s=0.5, block_s=0.05)
        async with (
            RedisTransport(server.url) as transport,
            consuming(source, BindingTransport(listener)) as consumer,
        ):
            await fill(transport, ("red",), 3)
            await until(lambda: consumer.counts.sent == 3)
            server.flush()
            server.kill()
            await asyncio.sleep(0.1)
            await asyncio.to_thread(server.start)
            await fill(transport, ("red",), 3, first=3)
            await until(lambda: len(listener.heard) >= 6)
            # What was delivered while it could not be acknowledged is acknowledged later.
            stream: Any = partition_of("red").messages
            await until(lambda: server.client.xpending(stream, GROUP)["pending"] == 0)
    finally:
        server.kill()
    assert listener.texts() == in_order(("red",), 6)


async def test_a_cluster_is_read_as_one_server_is(cluster: Valkey) -> None:
    """Its partitions lie in different slots, where nothing can be asked of several at a time."""
    url = f"redis+cluster://127.0.0.1:{cluster.port}"
    listener = Listener(lambda message: message.text != "1")
    source = RedisSource(url, block_s=0.05)
    async with (
        RedisTransport(url) as transport,
        consuming(source, BindingTransport(listener)) as consumer,
    ):
        await fill(transport, SESSIONS, 3)
        await until(lambda: consumer.counts.sent == 6 and consumer.counts.dead == 3)
        assert await source.redrive(await source.dead_letters()) == 3
    assert listener.texts() == {session: ["0", "2"] for session in SESSIONS}
