"""The description of the interface: that it is valid, and that the gateway keeps to it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import Server, running

EXAMPLES = 30
"""Requests made up for each operation, beside those that cover each rule of its schemas."""

CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 502]
"""
"""502 is said of the inference service, which this gateway does not have."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running("--workers", "1", "--set", "enable_dummy_provider=true") as server:
        yield server


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    answer = server.get("/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (
        200,
        "application/json; charset=utf-8",
    )
    found: dict[str, Any] = json.loads(answer.body)
    return found


def test_the_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    # Seconds to import, in each process that only looks for tests.
    from openapi_spec_validator import OpenAPIV31SpecValidator

    OpenAPIV31SpecValidator(document).validate()


def test_every_operation_has_a_name_of_its_own_and_says_how_it_fails(
    document: dict[str, Any],
) -> None:
    operations = [each for path in document["paths"].values() for each in path.values()]
    assert len({each["operationId"] for each in operations}) == len(operations)
    for operation in operations:
        assert operation["summary"]
        error = operation["responses"]["503"]["content"]["application/json"]["schema"]
        assert error == {"$ref": "#/components/schemas/ErrorBody"}


@pytest.mark.timeout(180)
def test_schemathesis_finds_nothing(server: Server, tmp_path: Path) -> None:
    address = f"http://{server.address}"
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)]
    command += ["run", f"{address}/openapi.json"]
    command += ["--url", address, "--checks", "all", "--max-examples", str(EXAMPLES)]
    command += ["--generation-deterministic", "--no-color"]
    tried = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=150)
    assert tried.returncode == 0, tried.stdout[-8000:] + tried.stderr[-2000:]
    assert "Traceback" not in server.log and "[error" not in server.log
