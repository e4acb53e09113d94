"""Starts pushing, where a collector is set; imports OpenTelemetry then and not before."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from edge.errors import MissingDependency
from edge.telemetry.settings import TelemetrySettings

if TYPE_CHECKING:
    from edge.telemetry.otlp import Telemetry


def telemetry(settings: TelemetrySettings, worker: int) -> Telemetry | None:
    """One worker's telemetry, not yet started; None without a collector.

    Raises ``MissingDependency`` when the extra ``otel`` is not installed.
    """
    if not settings.otlp_endpoint:
        return None
    try:
        from edge.telemetry.otlp import Telemetry
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("opentelemetry", "requests"):
            raise
        raise MissingDependency("opentelemetry-sdk", "otel") from error
    return Telemetry(settings, f"{socket.gethostname()}-{worker}-{os.getpid()}")
