"""A gateway whose bucket goes away while people are recorded."""

from __future__ import annotations

import asyncio

import msgspec

from edge.meeting.keys import chunk_key
from edge.objects.interface import ObjectStore
from edge.objects.settings import ObjectSettings
from tests.meeting.support.streamer import Streamer, body_of, numbers
from tests.objects.support.outages import until
from tests.objects.support.seaweed import Seaweed
from tests.support.server import QUIET_RECOGNIZER, running

ROLES = ("teacher", "students")


def environment(settings: ObjectSettings) -> dict[str, str]:
    """The settings as a gateway is given them."""
    given = msgspec.to_builtins(settings)
    changed = {
        name: value for name, value in given.items() if value != getattr(ObjectSettings(), name)
    }
    return QUIET_RECOGNIZER | {
        f"EDGESCRIBE_{name.upper()}": str(value) for name, value in changed.items()
    }


async def test_an_outage_delays_no_recording_and_loses_no_acked_chunk(
    seaweed: Seaweed, behind_spool: ObjectSettings, bucket: ObjectStore
) -> None:
    """One session began before it, one begins in it, and a worker dies in it."""
    with running("--workers", "2", environment=environment(behind_spool)) as server:

        def session(name: str) -> list[Streamer]:
            return [Streamer(server.address, name, role, numbers()) for role in ROLES]

        def go_on(streamers: list[Streamer], more: int) -> list[int]:
            return [len(streamer.acked) + more for streamer in streamers]

        async def acked(streamers: list[Streamer], counts: list[int]) -> None:
            await until(
                lambda: all(
                    len(each.acked) >= count for each, count in zip(streamers, counts, strict=True)
                )
            )

        streamers = session("before")
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each.run()) for each in streamers]
            await acked(streamers, [5, 5])
            seaweed.freeze()
            try:
                await acked(streamers, go_on(streamers, 20))
                later = session("during")
                tasks += [group.create_task(each.run()) for each in later]
                streamers += later
                await acked(streamers, go_on(streamers, 10))
                server.kill_worker(server.workers()[0])
                await acked(streamers, go_on(streamers, 10))
            finally:
                seaweed.thaw()
            await acked(streamers, go_on(streamers, 10))
            for task in tasks:
                task.cancel()
        await asyncio.gather(*(each.finish() for each in streamers))

        async def is_stored() -> bool:
            stored = set(await bucket.find("sessions/", limit=100_000))
            return all(
                chunk_key(each.session, each.role, seq) in stored
                for each in streamers
                for seq in each.acked
            )

        await until(is_stored)
        for each in streamers:
            for seq in each.acked:
                body = await bucket.get(chunk_key(each.session, each.role, seq))
                assert body == body_of(each.session, each.role, seq)
            held = await each.held()
            assert held.last_seq == max(each.acked)
            assert held.received_chunks == len(each.acked)
            assert held.missing_chunks == held.last_seq - len(each.acked)
