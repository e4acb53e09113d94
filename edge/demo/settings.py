"""Settings of ``edgescribe monitor``."""

from __future__ import annotations

from typing import Annotated

import msgspec

from edge.option import option


class MonitorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which gateway is asked to transcribe a sample, how often, and what it must answer."""

    monitor_url: Annotated[
        str | None,
        option("Address of the gateway to check", env="MONITOR_URL"),
    ] = None
    """Its /transcribe URL or base address; ``__SESSION_ID__`` in it becomes ``monitor-`` and 12
    hexadecimal digits, others at each attempt."""
    monitor_interval_s: Annotated[
        float,
        option(
            "Seconds from one check to the next", env="MONITOR_INTERVAL_SECONDS", gt=0, le=86400
        ),
    ] = 300.0
    """Counted from the end of a check."""
    monitor_min_finals: Annotated[
        int, option("Finals that make a check pass", env="MONITOR_MIN_FINALS", ge=1)
    ] = 1
    """Blank ones don't count."""
    monitor_retry_delay_s: Annotated[
        float,
        option(
            "Seconds before the one retry of a check",
            env="MONITOR_RETRY_DELAY_SECONDS",
            ge=0,
            le=600,
        ),
    ] = 20.0
    """A check fails when the retry fails, too."""
    monitor_deadline_s: Annotated[
        float, option("Longest wait for finals after the sample was sent", gt=0, le=600)
    ] = 30.0
    """In seconds; connecting has 15 s of its own."""
    monitor_headers: Annotated[
        dict[str, str],
        option("Extra request headers, as a JSON object", env="MONITOR_HEADERS", secret=True),
    ] = {}
    """What a proxy in front of the gateway asks for."""
    monitor_sample: Annotated[
        str, option("What to send: a WAV file, or media.jsonl of a recording")
    ] = ""
    """Empty is a recording that the packages of the embedded recognizer bring along."""
    monitor_speed: Annotated[
        float, option("Times as fast as spoken; 0 sends without delay", ge=0, le=1000)
    ] = 0.0
    """1 is the pace of a talk, and what a service with a limit of its own may need."""
    monitor_port: Annotated[
        int,
        option(
            "TCP port of the monitor's own /health and /metrics", env="MONITOR_PORT", ge=0, le=65535
        ),
    ] = 8081
    """On the address of ``host``; 0 takes a free one."""
