"""OpenTelemetry: this worker's spans and metrics, pushed to a collector over OTLP (HTTP, protobuf).

Comes in: spans by way of ``edge.tracing``, the values of ``edge.metrics``. Goes out: batches to
``<OTLP_ENDPOINT>/v1/traces`` and ``/v1/metrics``, from threads of its own; what a collector does
not take is dropped. ``edge.compose`` may call ``starting.telemetry``; with no endpoint set nothing
of OpenTelemetry is imported.
"""
