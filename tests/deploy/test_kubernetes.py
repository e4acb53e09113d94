"""The Kubernetes manifest fits the gateway that it starts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
KILLED_AFTER_S = 10


@pytest.fixture(scope="module")
def objects() -> dict[str, Any]:
    text = (REPOSITORY / "deploy/kubernetes/edgescribe.yaml").read_text()
    return {each["kind"]: each for each in yaml.safe_load_all(text)}


@pytest.fixture(scope="module")
def pod(objects: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = objects["Deployment"]["spec"]["template"]["spec"]
    return spec


def environment(pod: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in pod["containers"][0]["env"]}


def test_every_variable_is_a_setting(pod: dict[str, Any]) -> None:
    known = set(
        re.findall(r"`(EDGESCRIBE_\w+)`", (REPOSITORY / "docs/configuration.md").read_text())
    )
    assert set(environment(pod)) <= known


def test_ports_match(objects: dict[str, Any], pod: dict[str, Any]) -> None:
    container = pod["containers"][0]
    (port,) = container["ports"]
    assert str(port["containerPort"]) == environment(pod)["EDGESCRIBE_PORT"]
    assert objects["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == port["name"]
    annotations = objects["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"])


def test_the_grace_is_longer_than_the_longest_stop(pod: dict[str, Any]) -> None:
    before_s = float(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    drain_s = float(environment(pod)["EDGESCRIBE_DRAIN_DEADLINE_S"])
    assert pod["terminationGracePeriodSeconds"] >= before_s + drain_s + KILLED_AFTER_S + 5


def test_everything_selects_the_pods(objects: dict[str, Any]) -> None:
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert objects["Service"]["spec"]["selector"] == labels
    assert objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    target = objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert target["name"] == objects["Deployment"]["metadata"]["name"]


def test_the_autoscaler_counts_a_metric_that_there_is(objects: dict[str, Any]) -> None:
    name = objects["HorizontalPodAutoscaler"]["spec"]["metrics"][0]["pods"]["metric"]["name"]
    assert f'"{name}"' in (REPOSITORY / "edge/metrics.py").read_text()
