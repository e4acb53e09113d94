"""What the router counts (section R11), kept by prometheus_client."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from prometheus_client import Counter, Histogram

_REQUESTS: Final = Counter(
    "router_requests_total", "Requests by what became of them.", ("env", "service", "outcome")
)
OVERHEAD: Final = Histogram(
    "router_overhead_seconds",
    "Time from a request's head to the decision.",
    buckets=(1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 1e-2),
)


@lru_cache(maxsize=1024)
def requests(environment: str, service: str, outcome: str) -> Counter:
    """The counter of one environment, service and outcome."""
    return _REQUESTS.labels(environment, service, outcome)
