"""Services that crash, hang, leak tasks and answer 10 GB, beside live audio in one process."""

from __future__ import annotations

from pathlib import Path

from tests.ingest.support.latency import p99, results_ms
from tests.ingest.support.session import SessionClient
from tests.router.support.neighbours import gateway_among_services, misbehaving

WORDS = 12
MOVED_MS = 60.0
"""By so much the 99th percentile may move here, where other tests run as well."""
ATTEMPTS = 3
MB_PER_S = 100.0


async def test_results_and_other_services_answer_as_soon_beside_bad_ones(tmp_path: Path) -> None:
    moved_ms = []
    async with gateway_among_services(tmp_path) as server:
        speaker = await SessionClient.open(server, "session=room&speaker=anna")
        await speaker.hello("speaker")
        for _ in range(ATTEMPTS):
            quiet_ms = p99(await results_ms(speaker, WORDS))
            with misbehaving(server.port, MB_PER_S):
                beside_ms = p99(await results_ms(speaker, WORDS))
                steady = server.get("/", headers={"Host": "steady.localhost"}, timeout_s=3)
                assert (steady.status, steady.body) == (200, b"well")
            print(f"results, p99: {quiet_ms:.1f} ms quiet, {beside_ms:.1f} ms beside bad services")
            moved_ms.append(beside_ms - quiet_ms)
            if moved_ms[-1] < MOVED_MS:
                break
        await speaker.leave()
        assert server.processes_named("Sanic-Server")
    assert moved_ms[-1] < MOVED_MS, moved_ms
