"""A meeting over plain HTTP, and the trial of recognition that asks it."""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from edge.cli import smoke
from edge.demo.client import Unreachable
from edge.demo.rest import Meeting, NotAnswered
from edge.demo.smoke import SmokeFailed
from tests.support.server import free_port


class Answers(ThreadingHTTPServer):
    """Answers each path with what it was given, and notes what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.bodies: list[object] = []
        self.by_path: dict[str, tuple[int, object]] = {}
        self.heard("first", "second")
        stored = {"last_seq": 20, "received_chunks": 20}
        by_stream = {"teacher": stored, "students": {}, "mixed": {}}
        state = {"session_id": "m 1", "ingest": {}, "ingest_by_stream": by_stream}
        run = {"generated": 2, "last_window_end_seq": 20, "utterance_count": 2}
        self.by_path["/state"] = 200, state
        self.by_path["/asr-run"] = 200, {**run, "last_error": "busy"}
        self.by_path["/asr-reset"] = 200, {}

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def heard(self, *texts: str) -> None:
        """Set what was heard."""
        times = {"start_seq": 1, "end_seq": 10, "start_ms": 0, "end_ms": 10_000}
        items = [{"stream_role": "teacher", "text": text, **times} for text in texts]
        self.by_path["/utterances"] = 200, {"count": len(items), "items": items}


class _Handler(BaseHTTPRequestHandler):
    server: Answers

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.bodies += [json.loads(body)] if body else []
        self.server.asked.append(f"{self.command} {self.path}")
        last = "/" + urlsplit(self.path).path.rpartition("/")[2]
        status, answer = self.server.by_path[last]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    do_GET = do_POST = _answer

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def answers() -> Iterator[Answers]:
    with Answers() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(answers: Answers, *words: str) -> int:
    parser = argparse.ArgumentParser()
    smoke.add_arguments(parser)
    where = ("--base-url", answers.base, "--session-id", "m 1", "--stream-role", "teacher")
    return smoke.run(parser.parse_args(["asr", *where, *words]))


def test_the_trial_of_recognition_asks_and_prints(
    answers: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(answers, "--max-windows", "5", "--view", "merged", "--reset-first") == 0
    at = "/v1/sessions/m%201"
    assert answers.asked == [
        f"GET {at}/state",
        f"POST {at}/asr-reset?stream_role=teacher",
        f"POST {at}/asr-run?stream_role=teacher&max_windows=5",
        f"GET {at}/utterances?stream_role=teacher&view=merged&limit=1000",
    ]
    assert answers.bodies == [{}, {}]
    assert json.loads(capsys.readouterr().out) == {
        "ok": True,
        "session_id": "m 1",
        "stream_role": "teacher",
        "last_seq": 20,
        "generated": 2,
        "last_window_end_seq": 20,
        "utterance_count": 2,
        "text": "second",
    }


def test_too_few_utterances_fail_and_say_what_the_gateway_says(answers: Answers) -> None:
    with pytest.raises(SmokeFailed, match=r"2 utterances, not 3, of 20 stored chunks; the .*busy"):
        run(answers, "--min-utterances", "3")


def test_silence_fails_unless_it_is_allowed(answers: Answers) -> None:
    answers.heard("", "  ")
    with pytest.raises(SmokeFailed, match="not one of 2 utterances has text"):
        run(answers)
    assert run(answers, "--allow-empty-text") == 0


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (503, {"detail": "full"}, r'GET .*/state was answered 503: \{"detail": "full"\}'),
        (200, {"session_id": 5}, "/state was answered with something else: "),
        (200, b"OK", "/state was answered with something else: "),
    ],
)
def test_any_other_answer_is_told(answers: Answers, status: int, answer: object, said: str) -> None:
    answers.by_path["/state"] = status, answer
    with pytest.raises(NotAnswered, match=said):
        run(answers)


def test_nobody_there_is_told() -> None:
    base = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(Unreachable, match=r"cannot be asked: .*refused"):
        Meeting(base, "m1").state()
    with pytest.raises(Unreachable, match="is not a gateway's address"):
        Meeting("ftp://host", "m1")
