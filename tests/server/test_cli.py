"""The command line: help that helps, errors that are one line, statuses that mean something."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge.cli.main import COMMANDS, main
from tests.support.server import HOST, REPOSITORY, edgescribe, free_port, running


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_every_command_has_help_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"edgescribe {command}" in capsys.readouterr().out.partition("example: ")[2]


def test_version_is_printed() -> None:
    done = edgescribe("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("edgescribe ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bogus"], "invalid choice: 'bogus'"),
        ([], "required: COMMAND"),
        (["serve", "--prot", "1"], "unrecognized arguments: --prot 1"),
        (["probe", "healthy"], "invalid choice: 'healthy'"),
        (["config", "--set", "prot=1"], "did you mean port"),
        (["config", "--config", "absent.toml"], "the file does not exist"),
        (["probe", "live", "localhost:80"], "URL='localhost:80' cannot be used"),
        (["probe", "live", "http://localhost:99999"], "write it like http://127.0.0.1:8080"),
        (["demo", "--loss", "much"], "'much' is not a number from 0 to 50"),
        (["demo", "--speakers", "1.5"], "'1.5' is not a whole number from 1 to 64"),
        (["replay", "media.jsonl", "ws://localhost", "--speed", "nan"], "from 0 to 1000"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(words: list[str], said: str, tmp_path: Path) -> None:
    done = edgescribe(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("edgescribe")


@pytest.mark.parametrize("words", [["demo"], ["transcribe", "speech.wav"]])
def test_a_command_that_needs_the_embedded_extra_says_how_to_get_it(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(words) == 1
    assert capsys.readouterr().err == (
        "edgescribe: onnxruntime is not installed: pip install 'edgescribe[embedded]'\n"
    )


def test_debug_shows_where_an_error_came_from() -> None:
    for words in (["--debug", "probe"], ["probe", "--debug"]):
        done = edgescribe(*words, "live", f"http://{HOST}:{free_port()}")
        assert done.returncode == 1
        assert "Traceback" in done.stderr and "ProbeFailed" in done.stderr


def test_config_prints_values_sources_and_descriptions_without_secrets(tmp_path: Path) -> None:
    (tmp_path / "edgescribe.toml").write_text("[server]\nworkers = 3\n")
    environment = {"PORT": "9000", "OPENAI_API_KEY": "sk-very-secret"}
    outputs = {
        style: edgescribe("config", "--format", style, environment=environment, cwd=tmp_path)
        for style in ("table", "markdown", "json")
    }
    for done in outputs.values():
        assert (done.returncode, done.stderr) == (0, "")
        assert "sk-very-secret" not in done.stdout and "***" in done.stdout
    entries = json.loads(outputs["json"].stdout)
    assert entries["port"]["value"] == 9000
    assert entries["port"]["source"] == "environment PORT"
    assert entries["workers"]["source"] == "file edgescribe.toml"
    assert entries["openai_api_key"]["value"] == "***"
    assert "| `port` | `9000` | environment PORT |" in outputs["markdown"].stdout
    assert "environment PORT" in outputs["table"].stdout


def test_config_warns_about_unknown_variables() -> None:
    done = edgescribe("config", environment={"EDGESCRIBE_PROT": "1"})
    assert done.returncode == 0
    assert "did you mean EDGESCRIBE_PORT" in done.stderr


def test_probe_asks_the_gateway_it_is_given_or_the_one_of_the_settings() -> None:
    with running("--workers", "1") as server:
        done = edgescribe("probe", "live", server.url)
        assert (done.returncode, done.stdout) == (0, "OK\n")
        done = edgescribe("probe", "ready", environment={"PORT": str(server.port)})
        assert (done.returncode, done.stdout) == (0, '{"ready":true}\n')


def test_probe_of_nobody_is_one_line_and_status_1() -> None:
    port = free_port()
    done = edgescribe("probe", "live", f"http://{HOST}:{port}")
    assert done.returncode == 1
    expected = f"edgescribe: http://{HOST}:{port} cannot be asked: Connection refused\n"
    assert done.stderr == expected


def test_probe_does_not_trust_a_mere_connection() -> None:
    """A server that accepts and never answers is not alive."""
    with socket.create_server((HOST, 0)) as mute:
        address = f"http://{HOST}:{mute.getsockname()[1]}"
        done = edgescribe("probe", "live", address, "--timeout", "0.3")
    assert done.returncode == 1
    assert done.stderr == f"edgescribe: {address} did not answer within 0.3 s\n"


def test_probe_fails_for_any_other_answer() -> None:
    with answering(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy") as address:
        done = edgescribe("probe", "ready", address)
    assert done.returncode == 1
    assert done.stderr == f"edgescribe: {address} answered 503: busy\n"


@contextmanager
def answering(response: bytes) -> Iterator[str]:
    """The address of a server that answers its first request with ``response``."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(response)

    with socket.create_server((HOST, 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://{HOST}:{listener.getsockname()[1]}"
        thread.join()


def test_doctor_finds_nothing_wrong_here(tmp_path: Path) -> None:
    done = edgescribe("doctor", "--port", str(free_port()), cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    for subject in ("python", "libopus", "uvloop", "websockets", "sanic", "port", "data directory"):
        assert f"ok   {subject}" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process has loaded")
def test_doctor_says_which_file_libopus_was_loaded_from(tmp_path: Path) -> None:
    done = edgescribe("doctor", "--port", "0", cwd=tmp_path)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("ok   libopus"))
    assert Path(line.partition(" at ")[2].partition(" (")[0]).is_file()


def test_doctor_names_what_is_wrong_and_the_line_that_mends_it(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with socket.create_server((HOST, 0)) as taken:
        port = str(taken.getsockname()[1])
        done = edgescribe(
            "doctor", "--port", port, "--data-dir", str(tmp_path / "taken" / "data"), cwd=tmp_path
        )
    assert done.returncode == 1
    assert "bad  port" in done.stdout and "--port" in done.stdout
    assert "bad  data directory" in done.stdout and "--data-dir" in done.stdout


def test_doctor_says_which_file_hides_one_of_our_packages(tmp_path: Path) -> None:
    """Top-level names like ``router`` are short; a stranger may come first on the path."""
    stranger = tmp_path / "router"
    stranger.mkdir()
    (stranger / "__init__.py").write_text("")
    path = f"{tmp_path}:{REPOSITORY}"
    done = edgescribe(
        "doctor", "--port", str(free_port()), cwd=tmp_path, environment={"PYTHONPATH": path}
    )
    assert done.returncode == 1
    assert f"{stranger}/__init__.py" in done.stdout
