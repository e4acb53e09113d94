"""The recorder's commands against a real gateway, as a person runs them after a deployment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.demo.recorder import CHUNK_BYTES
from tests.asr.support.embedded import requires_embedded
from tests.demo.recordings import write_wav
from tests.support.server import Server, edgescribe, running
from tests.support.speech import two_cities_pcm


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running("--workers", "2", environment={"PROVIDERS_PRIORITY": "embedded"}) as server:
        yield server


@pytest.mark.parametrize("role", ["mixed", "teacher"])
def test_the_trial_of_ingest_passes_once_for_a_session(server: Server, role: str) -> None:
    words = ["smoke", "ingest", "--base-http", server.url, "--base-ws", f"ws://{server.address}"]
    words += ["--session-id", f"trial {role}", "--stream-role", role, "--chunks", "5"]
    done = edgescribe(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "ok": True,
        "session_id": f"trial {role}",
        "received_chunks": 5,
        "last_seq": 5,
        "bytes_stored": 5 * CHUNK_BYTES,
    }
    again = edgescribe(*words[:-1], "3")
    said = f"edgescribe: session trial {role}: received_chunks is 5, not 3\n"
    assert (again.returncode, again.stdout, again.stderr) == (1, "", said)


@requires_embedded
def test_a_file_is_recorded_printed_as_it_is_heard_and_transcribed_again_from_what_is_stored(
    server: Server, tmp_path: Path
) -> None:
    pcm = two_cities_pcm()[: 2 * 48000 * 49 // 4]
    wav = write_wav(tmp_path / "a.wav", pcm, 48000)
    words = ("record", str(wav), server.url, "--session-id", "m1", "--role", "students")
    done = edgescribe(*words, "--speed", "6", "--transcripts")
    assert (done.returncode, done.stderr) == (0, "")
    assert "best of times" in done.stdout
    assert "12.2 s stored as chunks 1 to 13" in done.stdout
    again = edgescribe(
        *("smoke", "asr", "--base-url", server.url, "--session-id", "m1"),
        *("--stream-role", "students", "--reset-first", "--max-windows", "0"),
    )
    assert (again.returncode, again.stderr) == (0, "")
    passed = json.loads(again.stdout)
    assert (passed["ok"], passed["last_seq"], passed["stream_role"]) == (True, 13, "students")
    assert passed["last_window_end_seq"] == 13 and passed["text"]


def test_there_is_nothing_to_transcribe_in_a_session_without_audio(server: Server) -> None:
    done = edgescribe("smoke", "asr", "--base-url", server.url, "--session-id", "empty")
    assert done.returncode == 1
    assert "session empty, mixed: 0 utterances, not 1, of 0 stored chunks" in done.stderr
    assert done.stderr.count("\n") == 1
