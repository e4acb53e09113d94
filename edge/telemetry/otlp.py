"""The pushing of spans and metrics, from two threads beside the worker's event loop.

A span that has ended waits in a queue of ``MOST_SPANS``; when that is full the oldest is dropped.
Every push has a deadline, its repetitions included, and a batch that was not taken by then is
dropped and counted. A stop waits ``STOP_WITHIN_S`` for what is left, whatever the collector does.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence

import opentelemetry.trace as api
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import (
    MetricExportResult,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import REGISTRY, Counter

from edge import tracing
from edge.logs import get_logger
from edge.telemetry import points
from edge.telemetry.settings import TelemetrySettings
from edge.tracing import Attribute, Span
from edge.version import VERSION

MOST_SPANS = 2048
AT_ONCE = 512
EVERY_MS = 5000
STOP_WITHIN_S = 2.0
SCOPE = "edgescribe"

_BATCHES = Counter(
    "edgescribe_otlp_batches",
    "Batches for the OpenTelemetry collector; dropped: it did not take them in time",
    ["signal", "outcome"],
)
_log = get_logger("edge.telemetry")


class OpenSpan:
    """``edge.tracing.Span`` as a span of OpenTelemetry."""

    __slots__ = ("_is_over", "_span", "context")

    def __init__(self, span: api.Span) -> None:
        self._span = span
        self._is_over = False
        self.context = api.set_span_in_context(span)

    def note(self, **attributes: Attribute) -> None:
        if not self._is_over:
            self._span.set_attributes(_named(attributes))

    def fail(self, reason: str) -> None:
        if not self._is_over:
            self._span.set_attribute("error.type", reason)
            self._span.set_status(api.Status(api.StatusCode.ERROR, reason))

    def end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._span.end()


class _Counted(SpanExporter):
    """Counts what becomes of batches."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        _count("traces", result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class Telemetry:
    """One worker's; ``start`` and ``stop`` are for its event loop."""

    def __init__(self, settings: TelemetrySettings, instance: str) -> None:
        """``instance`` tells this worker from all others, of other machines too."""
        resource = Resource(_resource(settings, instance))
        base, headers = settings.otlp_endpoint.rstrip("/"), dict(settings.otlp_headers)
        self._exporter = OTLPSpanExporter(
            f"{base}/v1/traces",
            headers=headers,
            timeout=settings.otlp_timeout_s,
            compression=Compression.Gzip,
        )
        self._pusher = _MetricsPusher(
            OTLPMetricExporter(
                f"{base}/v1/metrics",
                headers=headers,
                timeout=settings.otlp_timeout_s,
                compression=Compression.Gzip,
            ),
            resource,
            settings.otlp_export_interval_ms / 1000,
        )
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.otlp_trace_ratio)),
            resource=resource,
            shutdown_on_exit=False,
        )
        self._tracer = self._provider.get_tracer(SCOPE, VERSION)

    def start(self) -> None:
        """Take spans, and push."""
        processor: SpanProcessor = BatchSpanProcessor(
            _Counted(self._exporter),
            max_queue_size=MOST_SPANS,
            schedule_delay_millis=EVERY_MS,
            max_export_batch_size=AT_ONCE,
        )
        self._provider.add_span_processor(processor)
        self._pusher.start()
        tracing.install(self)

    async def stop(self) -> None:
        """Push what is left, within ``STOP_WITHIN_S``."""
        tracing.install(None)
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await asyncio.gather(
                    _aside(self._provider.shutdown), _aside(self._pusher.stop_and_push)
                )
        except TimeoutError:
            _log.warning("the OpenTelemetry collector did not take the last of it in time")
        self._exporter.shutdown()  # type: ignore[no-untyped-call]
        self._pusher.abandon()

    def begin(
        self, name: str, parent: Span | None, began_s_ago: float, attributes: dict[str, Attribute]
    ) -> Span:
        """See ``edge.tracing.Tracer``."""
        context = parent.context if isinstance(parent, OpenSpan) else Context()
        start_ns = time.time_ns() - round(began_s_ago * 1e9)
        span = self._tracer.start_span(
            name, context, attributes=_named(attributes), start_time=start_ns
        )
        assert isinstance(span, SdkSpan | api.NonRecordingSpan)
        return OpenSpan(span)


class _MetricsPusher:
    """A thread that pushes this process's metrics now and then."""

    def __init__(self, exporter: OTLPMetricExporter, resource: Resource, every_s: float) -> None:
        self._exporter = exporter
        self._resource = resource
        self._every_s = every_s
        self._start_ns = time.time_ns()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otlp metrics", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop_and_push(self) -> None:
        """Push once more, after a push that is under way."""
        self._stopping.set()
        self._thread.join()

    def abandon(self) -> None:
        """Repeat no push any more."""
        self._stopping.set()
        self._exporter.shutdown()

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stopping.wait(self._every_s)
            try:
                _count("metrics", self._exporter.export(self._data()) is MetricExportResult.SUCCESS)
            except Exception:
                _log.exception("metrics could not be pushed")

    def _data(self) -> MetricsData:
        times = points.Span(self._start_ns, time.time_ns())
        scope = ScopeMetrics(
            InstrumentationScope(SCOPE, VERSION), points.metrics(REGISTRY.collect(), times), ""
        )
        return MetricsData([ResourceMetrics(self._resource, [scope], "")])


def _resource(settings: TelemetrySettings, instance: str) -> dict[str, str]:
    ours = {
        "service.name": "edgescribe",
        "service.version": VERSION,
        "service.instance.id": instance,
    }
    if settings.otlp_env:
        ours["deployment.environment"] = ours["env"] = settings.otlp_env
    return {**ours, **settings.otlp_resource_attributes}


def _named(attributes: dict[str, Attribute]) -> dict[str, Attribute]:
    return {f"edgescribe.{name}": value for name, value in attributes.items()}


def _count(signal: str, is_taken: bool) -> None:
    _BATCHES.labels(signal, "taken" if is_taken else "dropped").inc()


def _aside(work: Callable[[], None]) -> asyncio.Future[None]:
    """Done when ``work`` is, in a thread that holds up nobody's end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not done.done():
            done.set_result(None)

    def run() -> None:
        try:
            work()
        finally:
            # The loop may have ended meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle)

    threading.Thread(target=run, name="otlp stop", daemon=True).start()
    return done
