"""What SQS takes of a batch decides what is sent again, and no session gets out of order."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web

from dispatch import Refused, Unreachable
from dispatch.messages import decode_message
from dispatch.sqs_queue import (
    MAX_BYTES,
    deduplication_id,
    entry_of,
    envelope_of,
    group_id,
    size_of,
)
from dispatch.transports.sqs import SqsTransport
from tests.dispatch.support.moto import CREDENTIALS, Moto
from tests.dispatch.support.targets import envelope_of as message
from tests.dispatch.support.targets import envelopes

Answer = Callable[[list[dict[str, Any]]], tuple[int, dict[str, Any]]]


def texts(entries: list[dict[str, Any]]) -> list[str]:
    return [decode_message(entry["MessageBody"].encode()).text for entry in entries]


@asynccontextmanager
async def queue(
    answer: Answer, name: str = "q.fifo"
) -> AsyncIterator[tuple[SqsTransport, list[list[dict[str, Any]]]]]:
    """A transport to a server that answers batches as a test says, and the batches it got."""
    batches: list[list[dict[str, Any]]] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        entries = json.loads(await request.read())["Entries"]
        batches.append(entries)
        status, said = answer(entries)
        body = json.dumps(said)
        return web.Response(status=status, text=body, content_type="application/x-amz-json-1.0")

    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with SqsTransport(
        f"{endpoint}/1/{name}", endpoint_url=endpoint, credentials=CREDENTIALS
    ) as transport:
        yield transport, batches
    await runner.cleanup()


def taken(entries: list[dict[str, Any]], *but: str, fault: bool = False) -> dict[str, Any]:
    """The answer that takes all but those with these texts."""
    failed = [entry["Id"] for entry in entries if texts([entry])[0] in but]
    return {
        "Successful": [
            {"Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": "5"}
            for entry in entries
            if entry["Id"] not in failed
        ],
        "Failed": [
            {"Id": name, "SenderFault": fault, "Code": "InternalError", "Message": "x"}
            for name in failed
        ],
    }


@pytest.mark.parametrize("fault", [False, True])
async def test_a_batch_that_is_taken_in_part_keeps_each_session_in_order(fault: bool) -> None:
    """No later message of a session is on its way before the one that failed is taken."""

    def answer(entries: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
        return 200, taken(entries, "3", fault=fault)

    async with queue(answer) as (transport, batches):
        counts = await asyncio.gather(*(transport.send(envelopes(f"s{n}", 5)) for n in range(10)))
        assert counts == [2] * 10
        with pytest.raises(Refused if fault else Unreachable, match="InternalError"):
            await transport.send([message("s0", 3)])
    assert max(len(batch) for batch in batches) == 10
    for batch in batches:
        sessions = [entry["MessageGroupId"] for entry in batch]
        assert len(set(sessions)) == len(sessions)
    assert {"4", "5"}.isdisjoint(text for batch in batches for text in texts(batch))


async def test_a_standard_queue_gets_ten_of_a_session_and_again_all_from_the_failed_one() -> None:
    def answer(entries: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
        return 200, taken(entries, "13")

    async with queue(answer, "q") as (transport, batches):
        assert await transport.send(envelopes("red", 30)) == 12
    assert [len(batch) for batch in batches] == [10, 10]
    assert "MessageGroupId" not in batches[0][0]


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, "com.amazonaws.sqs#InvalidMessageContents", Refused),
        (400, "AccessDeniedException", Unreachable),
        (400, "com.amazonaws.sqs#QueueDoesNotExist", Unreachable),
        (400, "ThrottlingException", Unreachable),
        (403, "InvalidClientTokenId", Unreachable),
        (500, "InternalFailure", Unreachable),
    ],
)
async def test_only_what_a_message_holds_is_a_reason_to_give_it_up(
    status: int, code: str, error: type[Exception]
) -> None:
    """And only that message: the others of its batch are sent without it."""

    def answer(entries: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
        if "bad" in texts(entries):
            return status, {"__type": code, "message": "x"}
        return 200, taken(entries)

    async with queue(answer) as (transport, _):
        results = await asyncio.gather(
            transport.send([message("red", 1, "bad")]),
            *(transport.send([message(f"s{n}", 1)]) for n in range(9)),
            return_exceptions=True,
        )
    assert isinstance(results[0], error)
    if error is Refused:
        assert results[1:] == [1] * 9
    else:
        assert all(isinstance(result, Unreachable) for result in results[1:])


async def test_an_answer_that_leaves_out_a_message_did_not_take_it() -> None:
    async with queue(lambda entries: (200, {"Successful": []})) as (transport, _):
        with pytest.raises(Unreachable, match="did not say"):
            await transport.send([message("red", 1)])


async def test_garbage_is_a_queue_out_of_reach() -> None:
    async with queue(lambda entries: (200, {"Successful": 5})) as (transport, _):
        with pytest.raises(Unreachable):
            await transport.send([message("red", 1)])


async def test_batches_are_no_larger_than_sqs_takes_them(moto: Moto) -> None:
    url = await moto.make_queue(f"{secrets.token_hex(4)}.fifo")
    async with SqsTransport(url, endpoint_url=moto.url, credentials=CREDENTIALS) as transport:
        waiting = [message(f"s{n}", 1, "ä" * 60_000) for n in range(6)]
        counts = await asyncio.gather(*(transport.send([envelope]) for envelope in waiting))
        assert counts == [1] * 6
    arrived = [envelope_of(found) for found in await moto.take_all(url)]
    assert sorted(arrived, key=lambda envelope: int(envelope.session[1:])) == waiting


async def test_a_standard_queue_has_all_that_the_envelope_says(moto: Moto) -> None:
    url = await moto.make_queue(secrets.token_hex(4))
    waiting = [msgspec.structs.replace(envelope, epoch="") for envelope in envelopes("red", 25)]
    async with SqsTransport(url, endpoint_url=moto.url, credentials=CREDENTIALS) as transport:
        assert await transport.send(waiting) == 25
    arrived = [envelope_of(found) for found in await moto.take_all(url)]
    assert sorted(arrived, key=lambda envelope: int(envelope.message_id[4:])) == waiting


async def test_a_fifo_queue_keeps_all_sessions_in_order_and_each_message_once(moto: Moto) -> None:
    url = await moto.make_queue(f"{secrets.token_hex(4)}.fifo")
    async with SqsTransport(url, endpoint_url=moto.url, credentials=CREDENTIALS) as transport:
        for _ in range(2):
            sends = (transport.send(envelopes(f"s{n}", 4)) for n in range(6))
            assert await asyncio.gather(*sends) == [4] * 6
    heard = defaultdict[str, list[str]](list)
    for found in map(envelope_of, await moto.take_all(url)):
        heard[found.session].append(decode_message(found.body).text)
    assert heard == {f"s{n}": ["1", "2", "3", "4"] for n in range(6)}


def test_what_is_no_message_of_ours_is_told() -> None:
    with pytest.raises(ValueError, match="has no"):
        envelope_of({"Body": "{}"})


def test_groups_and_ids_are_what_sqs_takes() -> None:
    assert group_id("room-1") == "room-1"
    for name in ("", "a b", "ü", "x" * 129):
        assert len(group_id(name)) == 64
    first = message("red", 1)
    assert deduplication_id(first) == deduplication_id(message("red", 1, attempt=9))
    others = [message("red", 2), msgspec.structs.replace(first, epoch="another")]
    assert deduplication_id(first) not in map(deduplication_id, others)


def test_characters_that_sqs_refuses_are_written_as_json_allows() -> None:
    envelope = message("red", 1, "\ufffe\uffff\x00")
    entry = entry_of(envelope, fifo=True)
    assert decode_message(entry["MessageBody"].encode()) == decode_message(envelope.body)
    assert not {"\ufffe", "\uffff", "\x00"} & set(entry["MessageBody"])
    assert 0 < size_of(entry) < MAX_BYTES
