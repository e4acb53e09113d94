"""Every query of the dashboard is PromQL over metrics and labels that the gateway serves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

import edge.objects.spool
import edge.server.worker
import edge.telemetry.otlp
from tests.support.server import REPOSITORY, running

DASHBOARD = REPOSITORY / "deploy" / "grafana" / "edgescribe.json"
OF_PROMETHEUS = {"job", "instance"}
"""Labels that a scrape adds."""
MODULES = (edge.objects.spool, edge.server.worker, edge.telemetry.otlp)
"""Between them they import every metric of a worker."""

Labels = dict[str, frozenset[str]]
"""Label names by the name of a sample."""


def dashboard() -> Any:
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))


def panels() -> list[Any]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> list[tuple[str, str]]:
    """Expressions with Grafana's variables filled in, and how their series are called."""
    return [
        (target["expr"].replace("$__rate_interval", "5m"), target["legendFormat"])
        for panel in panels()
        for target in panel["targets"]
    ]


def labels_in(text: str) -> Labels:
    """What metrics in Prometheus's text are called, and have for labels."""
    return {
        sample.name: frozenset(sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture(scope="module")
def declared() -> Labels:
    """Every metric of a worker, those of rare events included, as it would be served."""
    for collector in set(REGISTRY._collector_to_names):
        if isinstance(collector, MetricWrapperBase) and collector._labelnames:
            collector.labels(*("some" for _ in collector._labelnames))
    return labels_in(generate_latest(REGISTRY).decode())


def selectors(node: Any) -> Iterator[promql_parser.VectorSelector]:
    """Every selector of an expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("args", "expr", "lhs", "rhs", "vector_selector", "param"):
        below = getattr(node, name, None)
        for each in below if isinstance(below, list) else [below]:
            if each is not None and not isinstance(each, str):
                yield from selectors(each)


def grouped_by(query: str) -> set[str]:
    return {
        name.strip() for group in re.findall(r"by \(([^)]*)\)", query) for name in group.split(",")
    }


def test_every_query_asks_for_what_is_served(declared: Labels) -> None:
    faults = []
    for query, legend in queries():
        found = list(selectors(promql_parser.parse(query)))
        assert found, query
        known = set(OF_PROMETHEUS)
        for selector in found:
            labels = declared.get(selector.name)
            if labels is None:
                faults.append(f"{selector.name} is not served: {query}")
                continue
            known |= labels
            for matcher in selector.matchers.matchers:
                if matcher.name not in labels | OF_PROMETHEUS:
                    faults.append(f"{selector.name} has no label {matcher.name}: {query}")
        faults += [f"no label {name}: {query}" for name in grouped_by(query) - known]
        shown = set(re.findall(r"{{(\w+)}}", legend))
        faults += [f"no {name} is left for {legend}: {query}" for name in shown - grouped_by(query)]
        if "histogram_quantile" in query and "le" not in grouped_by(query):
            faults.append(f"a quantile without le: {query}")
        if "_total" in query and "rate(" not in query:
            faults.append(f"a counter without its rate: {query}")
    assert faults == []


def test_a_running_gateway_serves_them_under_these_names(declared: Labels) -> None:
    """What is declared in this process is what workers serve, as far as anything has happened."""
    with running("--workers", "1") as server:
        served = labels_in(server.get("/metrics").body.decode())
    ours = {name: labels for name, labels in served.items() if not name.endswith("_created")}
    assert len(ours) > 30
    assert {name: declared.get(name) for name in ours} == ours


def test_panels_lie_beside_each_other_and_have_units() -> None:
    places = set()
    for panel in panels():
        grid = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & places, panel["title"]
        places |= cells
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])
