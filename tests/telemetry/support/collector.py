"""An OTLP/HTTP collector that decodes what it is sent with OpenTelemetry's own messages."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """What came, decoded; ``stuck`` answers nothing until it is set."""

    def __init__(self) -> None:
        self.traces: list[ExportTraceServiceRequest] = []
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.released = threading.Event()
        self.released.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.released.wait(30)
                collector.take(self.path, dict(self.headers), gzip.decompress(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        """Decode one request."""
        assert headers["content-type" if "content-type" in headers else "Content-Type"] == (
            "application/x-protobuf"
        )
        self.headers.append({name.lower(): value for name, value in headers.items()})
        if path == "/v1/traces":
            self.traces.append(ExportTraceServiceRequest.FromString(body))
        else:
            assert path == "/v1/metrics", path
            self.metrics.append(ExportMetricsServiceRequest.FromString(body))

    @contextmanager
    def running(self) -> Iterator[Collector]:
        """Serve until the end of the block."""
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.released.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def resources(self) -> list[dict[str, str]]:
        """The attributes of every resource that sent something."""
        every = [each.resource for request in self.traces for each in request.resource_spans]
        every += [each.resource for request in self.metrics for each in request.resource_metrics]
        return [{item.key: item.value.string_value for item in one.attributes} for one in every]

    def spans(self) -> list[Span]:
        """All spans that came."""
        return [
            span
            for request in self.traces
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def newest(self, name: str) -> Metric | None:
        """A metric as it came last."""
        found = [
            metric
            for request in self.metrics
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]
        return found[-1] if found else None


def attributes(span: Span) -> dict[str, object]:
    """The attributes of a span without our prefix."""
    return {
        item.key.removeprefix("edgescribe."): getattr(
            item.value, str(item.value.WhichOneof("value"))
        )
        for item in span.attributes
    }
