"""A start either ends in a gateway that takes work and says so, or in one clear line."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.server import (
    HOST,
    QUIET_RECOGNIZER,
    edgescribe,
    free_port,
    running,
    wait_until,
)


def test_it_says_where_it_listens_what_it_can_and_where_it_keeps_things() -> None:
    with running("--workers", "2") as server:
        wait_until(lambda: "data directory" in server.output, "the lines of the start")
        lines = server.output.splitlines()
        assert lines[0].endswith(f"listens on {server.url} (2 workers)")
        assert lines[1].endswith(f"ws://{server.address}/transcribe")
        assert "dummy (default)" in lines[2]
        assert lines[3] == f"data directory: {server.data_dir}"
        assert server.data_dir.is_dir()


def test_the_lines_come_when_all_workers_take_work_and_not_before() -> None:
    with running("--workers", "2") as server:
        wait_until(lambda: "listens on" in server.output, "the first line")
        assert json.loads(server.get("/status").body)["workers"] == 2


def test_it_is_ready_when_every_worker_has_said_that_it_takes_work() -> None:
    with running("--workers", "4") as server:
        assert json.loads(server.get("/status").body)["workers"] == 4


def test_a_taken_port_is_one_line_and_status_1() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        done = edgescribe("serve", "--port", str(port), environment=QUIET_RECOGNIZER)
    assert done.returncode == 1
    expected = f"edgescribe: cannot listen on {HOST}:{port}: Address already in use\n"
    assert (done.stdout, done.stderr) == ("", expected)


def test_port_0_takes_a_free_port_and_prints_it() -> None:
    with running("--port", "0", "--workers", "1", ready=False) as server:
        wait_until(lambda: "listens on" in server.output, "the first line", 30)
        server.port = int(server.output.split("http://127.0.0.1:")[1].split()[0])
        assert server.get("/health").status == 200


async def test_a_full_gateway_is_not_ready_until_somebody_leaves() -> None:
    with running("--workers", "1", "--set", "max_sessions=1") as server:

        def reason() -> str:
            return str(json.loads(server.get("/ready").body).get("reason", ""))

        async with connect(server.transcribe_url):
            wait_until(lambda: reason() == "full", "/ready says full")
            with pytest.raises(InvalidStatus) as refused:
                await connect(server.transcribe_url)
            assert refused.value.response.status_code == 503
        wait_until(lambda: reason() == "", "/ready says ready")


def test_an_unusable_data_directory_is_a_settings_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = edgescribe(
        "serve", "--port", str(free_port()), "--data-dir", str(tmp_path / "file" / "data")
    )
    assert done.returncode == 2
    assert done.stderr.startswith("edgescribe: data_dir=") and done.stderr.count("\n") == 1


def test_without_any_recognizer_it_refuses_and_says_what_each_needs() -> None:
    done = edgescribe(
        "serve", "--port", str(free_port()), environment={"PROVIDERS_PRIORITY": "openai"}
    )
    assert done.returncode == 2
    assert "OPENAI_API_KEY" in done.stderr and done.stderr.count("\n") == 1


def test_a_bad_setting_is_one_line_and_status_2() -> None:
    done = edgescribe("serve", environment={"PORT": "eighty"})
    assert done.returncode == 2
    assert done.stderr == (
        "edgescribe: PORT='eighty' cannot be used: port is a whole number from 0 to 65535\n"
    )


def test_the_process_beside_the_workers_logs_in_the_same_form() -> None:
    environment = {**QUIET_RECOGNIZER, "PROVIDERS_PRIORITY": "dummy,embedded"}
    arguments = ("--workers", "1", "--set", "log_format=json")
    with running(*arguments, environment=environment) as server:
        ready = "the embedded recognizer is ready"
        wait_until(lambda: ready in server.log, "the inference process's first line")
        assert ready in [json.loads(line)["event"] for line in server.log.splitlines()]


def test_logs_are_json_lines_when_asked_for_and_never_hold_a_query() -> None:
    environment = {
        **QUIET_RECOGNIZER,
        "EDGESCRIBE_LOG_FORMAT": "json",
        "EDGESCRIBE_ACCESS_LOG": "true",
        "EDGESCRIBE_UNKNOWN": "1",
    }
    with running("--workers", "1", environment=environment) as server:
        server.get("/health?token=very-secret")
        wait_until(lambda: '"/health"' in server.log, "the request in the log")
        entries = [json.loads(line) for line in server.log.splitlines()]
        requests = [entry for entry in entries if entry["event"] == "request"]
        assert {"method": "GET", "path": "/health", "status": 426}.items() <= requests[-1].items()
        assert any("EDGESCRIBE_UNKNOWN" in entry["event"] for entry in entries)
        assert "very-secret" not in server.log
