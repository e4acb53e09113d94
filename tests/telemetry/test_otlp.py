"""A real collector gets a worker's spans and metrics; one that hangs costs the worker nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

from websockets.asyncio.client import ClientConnection, connect

from edge import tracing
from edge.telemetry.otlp import MOST_SPANS, STOP_WITHIN_S
from edge.telemetry.settings import TelemetrySettings
from edge.telemetry.starting import telemetry
from tests.asr.fakes.openai_endpoint import KEY, FakeOpenAI
from tests.support.server import clean_environment, edgescribe, running
from tests.support.speech import speak
from tests.telemetry.support.collector import Collector, attributes

SAID = "it was the best of times"
PACKETS = 100
NAMES = {"session", "track", "recognizer connection", "final", "dispatch", "finalize"}


async def test_a_collector_gets_the_spans_of_a_session_and_the_metrics_of_its_worker() -> None:
    endpoint = FakeOpenAI(transcribe=lambda pcm: SAID)
    with Collector().running() as collector:
        environment = {
            "OPENAI_API_KEY": KEY,
            "PROVIDERS_PRIORITY": "openai",
            "OPENAI_TURN_DETECTION": "null",
            "OTLP_ENDPOINT": collector.url + "/",
            "OTLP_ENV": "tests",
            "OTLP_EXPORT_INTERVAL_MS": "60000",
            "OTLP_HEADERS": '{"x-collector-key": "sesame"}',
            "OTLP_RESOURCE_ATTRIBUTES": '{"city": "Bath"}',
            "EDGESCRIBE_DISPATCH_LOCAL": "on",
        }
        async with endpoint:
            environment["OPENAI_REALTIME_URL"] = endpoint.url
            with running("--workers", "1", environment=environment) as server:
                url = f"{server.transcribe_url}&sessionId=one&useDispatcher=true"
                async with connect(url) as client:
                    await speak(client, "a", PACKETS)
                    await _final(client)
                answer = await asyncio.to_thread(
                    server.get, "/v1/sessions/one/finalize", "POST", body=b"{}"
                )
                assert answer.status == 200, answer
                server.process.terminate()
                assert await asyncio.to_thread(server.wait) == 0
                assert KEY not in server.log and "sesame" not in server.log

    spans = {name: [each for each in collector.spans() if each.name == name] for name in NAMES}
    assert {each.name for each in collector.spans()} == NAMES, spans
    (session,) = spans["session"]
    assert attributes(session)["session"] == "one"
    assert attributes(session)["finals"] == 1
    (track,) = spans["track"]
    assert attributes(track)["packets"] == PACKETS
    (final,) = spans["final"]
    assert attributes(final) | {"provider": "openai", "is_sent": True} == attributes(final)
    assert track.parent_span_id == session.span_id
    assert {each.parent_span_id for each in spans["recognizer connection"]} == {track.span_id}
    assert final.parent_span_id == track.span_id
    assert {each.trace_id for each in (session, track, final)} == {session.trace_id}
    assert session.start_time_unix_nano <= final.start_time_unix_nano
    assert sum(int(str(attributes(each)["acknowledged"])) for each in spans["dispatch"]) == 1
    assert SAID not in str(collector.spans())

    assert {(one["service.name"], one["env"], one["city"]) for one in collector.resources()} == {
        ("edgescribe", "tests", "Bath")
    }
    assert len({one["service.instance.id"] for one in collector.resources()}) == 1
    assert {headers["x-collector-key"] for headers in collector.headers} == {"sesame"}
    starts = collector.newest("otp_session_starts_total")
    assert starts and starts.sum.is_monotonic and starts.sum.data_points[0].as_double == 1
    assert starts.sum.data_points[0].attributes[0].value.string_value == "openai"
    latency = collector.newest("otp_transcription_latency_seconds")
    assert latency and latency.unit == "s"
    (point,) = latency.histogram.data_points
    assert point.count == sum(point.bucket_counts) == 1
    assert list(point.explicit_bounds) == [0.5, 1, 2, 5, 10, 30]
    sent = collector.newest("otp_dispatcher_messages_sent_total")
    assert sent and sent.sum.data_points[0].as_double == 1
    chunks = collector.newest("otp_client_audio_chunks_total")
    assert chunks and chunks.sum.data_points[0].as_double == PACKETS


async def test_a_collector_that_hangs_costs_bounded_memory_and_a_bounded_stop() -> None:
    collector = Collector()
    collector.released.clear()
    with collector.running():
        pushing = telemetry(TelemetrySettings(otlp_endpoint=collector.url), 0)
        assert pushing is not None
        pushing.start()
        began_s = time.monotonic()
        for number in range(3 * MOST_SPANS):
            tracing.begin("session", number=number).end()
        assert time.monotonic() - began_s < 5.0
        began_s = time.monotonic()
        await pushing.stop()
        assert time.monotonic() - began_s < STOP_WITHIN_S + 1.0
        assert not tracing.is_on()
        collector.released.set()
        assert len(collector.spans()) <= MOST_SPANS + 512


def test_without_an_endpoint_nothing_of_opentelemetry_is_imported() -> None:
    script = (
        "import sys, edge.server.app\n"
        "from edge.compose import build_telemetry\n"
        "from edge.settings import Settings\n"
        "assert build_telemetry(Settings(), 0) is None\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout == "[]\n", done.stderr
    assert tracing.begin("session") is tracing.NO_SPAN


def test_an_endpoint_that_is_no_url_is_refused() -> None:
    done = edgescribe("config", environment={"OTLP_ENDPOINT": "collector:4318"})
    assert done.returncode == 2 and "otlp_endpoint" in done.stderr


async def _final(client: ClientConnection) -> None:
    async with asyncio.timeout(15):
        while SAID not in str(await client.recv()):
            pass
