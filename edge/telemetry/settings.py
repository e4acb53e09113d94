"""Settings of what is pushed to an OpenTelemetry collector."""

from __future__ import annotations

from typing import Annotated

import msgspec

from edge.option import option


class TelemetrySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Traces and metrics over OTLP/HTTP; needs the extra ``otel``. Off without an endpoint."""

    otlp_endpoint: Annotated[
        str,
        option(
            "Base URL of an OTLP/HTTP collector; empty: nothing is pushed",
            env="OTLP_ENDPOINT",
            pattern=r"^(https?://[^\s/?#@]+[^\s?#]*)?$",
        ),
    ] = ""
    """/v1/traces and /v1/metrics are added to it; keys belong in otlp_headers."""
    otlp_env: Annotated[
        str, option("Resource attributes deployment.environment and env", env="OTLP_ENV")
    ] = ""
    """Empty: they are left out."""
    otlp_export_interval_ms: Annotated[
        int,
        option("Time between two pushes of metrics", env="OTLP_EXPORT_INTERVAL_MS", ge=100),
    ] = 60_000
    """Spans go out every 5 s, or when 512 of them wait."""
    otlp_resource_attributes: Annotated[
        dict[str, str],
        option("Further resource attributes", env="OTLP_RESOURCE_ATTRIBUTES"),
    ] = {}
    """They win over our own, service.name for one."""
    otlp_headers: Annotated[
        dict[str, str],
        option("Headers of every push, keys of the collector's", env="OTLP_HEADERS", secret=True),
    ] = {}
    """Shown as *** wherever settings are shown."""
    otlp_timeout_s: Annotated[
        float, option("Longest time for one push, its repetitions included", gt=0, le=60)
    ] = 10.0
    """A push that fails for so long is dropped."""
    otlp_trace_ratio: Annotated[
        float, option("Share of sessions, dispatches and finalizations that are traced", ge=0, le=1)
    ] = 1.0
    """Metrics do not depend on it."""
