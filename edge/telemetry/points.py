"""Prometheus metric families as OTLP metrics, under the names of their samples.

The counters of the gateway are kept once, by ``edge.metrics``; what is pushed is a picture of
them. In a worker the default registry holds the values of that worker alone, so that a collector
adds workers up by their ``service.instance.id``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    DataT,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

CUMULATIVE = AggregationTemporality.CUMULATIVE
OURS = ("otp_", "edgescribe_")
OF_ALL_WORKERS = ("edgescribe_session_stability",)
"""Worked out over all workers, when somebody asks for ``/metrics``."""
UNITS = {"_seconds": "s", "_milliseconds": "ms", "_bytes": "By"}


class Span(NamedTuple):
    """From the start of the worker until now."""

    start_ns: int
    now_ns: int


def metrics(families: Iterable[Family], times: Span) -> list[Metric]:
    """The families of this project, each as one metric."""
    found = []
    for family in families:
        if not family.name.startswith(OURS) or family.name.startswith(OF_ALL_WORKERS):
            continue
        data = _data(family, times)
        if data is not None:
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found.append(Metric(name, family.documentation, _unit(family.name), data))
    return found


def _data(family: Family, times: Span) -> DataT | None:
    match family.type:
        case "counter":
            totals = [each for each in family.samples if each.name.endswith("_total")]
            return Sum([_number(each, times) for each in totals], CUMULATIVE, True)
        case "gauge":
            return Gauge([_number(each, times) for each in family.samples])
        case "histogram":
            return Histogram(_histograms(family.samples, times), CUMULATIVE)
    return None


def _number(sample: Sample, times: Span) -> NumberDataPoint:
    labels = {name: value for name, value in sample.labels.items() if name != "pid"}
    return NumberDataPoint(labels, times.start_ns, times.now_ns, sample.value)


def _histograms(samples: Iterable[Sample], times: Span) -> list[HistogramDataPoint]:
    """Buckets of Prometheus count all below them; those of OTLP count what is between them."""
    series: dict[tuple[tuple[str, str], ...], dict[str, list[Sample]]] = {}
    for sample in samples:
        labels = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
        series.setdefault(labels, {}).setdefault(sample.name.rpartition("_")[2], []).append(sample)
    points = []
    for labels, parts in series.items():
        buckets = sorted((float(each.labels["le"]), each.value) for each in parts["bucket"])
        below = [0.0, *(count for _, count in buckets)]
        counts = [round(upper - lower) for lower, upper in pairwise(below)]
        points.append(
            HistogramDataPoint(
                attributes=dict(labels),
                start_time_unix_nano=times.start_ns,
                time_unix_nano=times.now_ns,
                count=sum(counts),
                sum=parts["sum"][0].value,
                bucket_counts=counts,
                explicit_bounds=[bound for bound, _ in buckets if not math.isinf(bound)],
                min=None,  # type: ignore[arg-type]
                max=None,  # type: ignore[arg-type]
            )
        )
    return points


def _unit(name: str) -> str:
    return next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "1")
