"""Settings of the processes: where they listen, how many there are, how they stop and log."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edge.option import option


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the gateway listens, its workers, its directory and its logs."""

    host: Annotated[str, option("Address or host name to listen on", env="HOST")] = "127.0.0.1"
    """0.0.0.0 or :: listens on every interface."""
    port: Annotated[int, option("TCP port; 0 takes a free one", env="PORT", ge=0, le=65535)] = 8080
    """The port really taken is printed at start."""
    tls_cert: Annotated[
        Path | None, option("PEM file of the certificate chain; with tls_key, https and wss only")
    ] = None
    """The gateway's own certificate comes first in it."""
    tls_key: Annotated[Path | None, option("PEM file of the certificate's private key")] = None
    """Without a passphrase, readable for the gateway's user only."""
    workers: Annotated[int, option("Worker processes; 0 is one per core", ge=0, le=256)] = 0
    """Each has its own event loop; they share the port."""
    data_dir: Annotated[Path, option("Directory for everything kept on disk")] = Path(
        "./edgescribe-data"
    )
    """Created when missing."""
    drain_deadline_s: Annotated[
        float, option("Longest wait for last transcripts when the gateway stops", gt=0, le=600)
    ] = 15.0
    """Then sockets are closed whatever is missing."""
    hang_deadline_s: Annotated[
        float, option("A worker whose event loop stands still for so long is replaced", gt=0)
    ] = 15.0
    """Its clients reconnect; the other workers go on."""
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        option("Least important log lines to write; transcripts appear at debug", env="LOG_LEVEL"),
    ] = "info"
    """Logs go to standard error."""
    log_format: Annotated[
        Literal["text", "json"], option("Log lines for people or for collectors")
    ] = "text"
    """One line per entry in both."""
    access_log: Annotated[bool, option("Log every plain HTTP request and every WebSocket")] = False
    """Query strings are never logged. A WebSocket is logged when it is over."""

    @property
    def worker_count(self) -> int:
        """The number of workers to start."""
        if self.workers:
            return self.workers
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1


class RoutingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The router in front of the gateway, which is its service ``gateway``. Off by default."""

    router: Annotated[bool, option("Route requests by host and path; a router_file does, too")] = (
        False
    )
    """Off: every host reaches the gateway."""
    router_file: Annotated[
        Path | None, option("TOML file of the router's zones, hosts and services")
    ] = None
    """docs/router.md describes it; its host and port do not count here."""
    admin_key: Annotated[str, option("Bearer key of the router's Deploy API", secret=True)] = ""
    """Empty: keys with the scope deploy only; without such keys there is no Deploy API."""

    @property
    def is_on(self) -> bool:
        """Whether requests are routed."""
        return self.router or self.router_file is not None
