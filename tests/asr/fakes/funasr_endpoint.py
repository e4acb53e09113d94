"""A DashScope endpoint for Fun-ASR tasks that keeps to the vendor's protocol and hears tones.

It checks what the documents demand: key, instructions in order, one task at a time, each with an id
of its own, audio between ``task-started`` and ``finish-task`` only, no long pauses. A connection
may carry one task after another. Times count from the start of the task. It is itself checked by
the official client.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

from websockets.http11 import Request, Response

from tests.asr.fakes.common import Conversation, Ear, FakeService, Fault, Heard, Line, answer
from tests.asr.support.tones import FRAME_MS

KEY = "sk-0123456789abcdef0123456789abcdef"
PATH = "/api-ws/v1/inference"
RATE_HZ = 16000
BYTES_PER_MS = RATE_HZ * 2 // 1000
SENTENCE_SILENCE_MS = 1300
HEARTBEAT_MS = 5000
"""Of silence between two heartbeats, where the task asks for them."""
HINTS = ("zh", "en", "ja")
PARAMETERS: dict[str, type] = {
    "format": str,
    "sample_rate": int,
    "heartbeat": bool,
    "language_hints": list,
    "vocabulary_id": str,
    "max_sentence_silence": int,
    "semantic_punctuation_enabled": bool,
    "multi_threshold_mode_enabled": bool,
}


class FakeFunASR(FakeService):
    """``async with FakeFunASR() as endpoint``; then ``endpoint.address``."""

    def __init__(
        self,
        *,
        faults: Sequence[Fault] | Callable[[int], Fault] = (),
        sentence_silence_ms: int = SENTENCE_SILENCE_MS,
        start_delay_s: float = 0.0,
        refuses: dict[str, str] | None = None,
        task_timeout_s: float = 23.0,
        spare_timeout_s: float = 60.0,
        silence_timeout_ms: float = 60_000,
        numbered: bool = True,
        repeats: bool = False,
    ) -> None:
        """``refuses`` is the error of every task; ``numbered`` says whether sentences have ids.

        A task without audio fails after ``task_timeout_s``, one with silence alone after
        ``silence_timeout_ms`` of it, a connection without a task ends after ``spare_timeout_s``.
        ``repeats`` sends every final twice.
        """
        super().__init__(faults)
        self.sentence_silence_ms = sentence_silence_ms
        self.start_delay_s = start_delay_s
        self.refuses = refuses
        self.task_timeout_s = task_timeout_s
        self.spare_timeout_s = spare_timeout_s
        self.silence_timeout_ms = silence_timeout_ms
        self.numbered = numbered
        self.repeats = repeats
        self.tasks: list[Task] = []
        """All that were started, on whatever connection."""
        self.instructions: list[dict[str, Any]] = []
        """All that were understood."""

    @property
    def address(self) -> str:
        """The endpoint's whole address."""
        return self.url + PATH

    def refuse(self, request: Request, heard: Heard) -> Response | None:
        if heard.path.rstrip("/") != PATH:
            return _refusal(HTTPStatus.NOT_FOUND, "NotFound", "unknown address")
        if not re.fullmatch(f"(?i:bearer) {KEY}", heard.headers.get("authorization", "")):
            return _refusal(HTTPStatus.UNAUTHORIZED, "InvalidApiKey", "Invalid API-key provided.")
        return None

    def converse(self, line: Line) -> Conversation:
        return _Session(self, line)


class Task:
    """One recognition task."""

    def __init__(self, task_id: str, parameters: dict[str, Any], connection: int) -> None:
        self.task_id = task_id
        self.parameters = parameters
        self.connection = connection
        """Number of the connection that carries it."""
        self.started = self.finishing = self.finished = False
        self.audio = bytearray()
        self.ear = Ear(RATE_HZ)
        self.begin = 0
        """First frame that belongs to no sentence."""
        self.seen = 0
        self.sentences = 0
        self.interim = ""
        self.quiet_ms = 0.0
        """Silence up to now."""
        self.beaten_ms = 0.0
        """Of it what has had its heartbeat."""


class _Session(Conversation):
    """One open connection."""

    def __init__(self, service: FakeFunASR, line: Line) -> None:
        self._service = service
        self._line = line
        self._task: Task | None = None
        self._audio_ms = 0.0
        self._dead = False

    @property
    def timeout_s(self) -> float:  # type: ignore[override]
        service = self._service
        return service.spare_timeout_s if self._task is None else service.task_timeout_s

    async def audio(self, message: bytes) -> float:
        self._audio_ms += len(message) / BYTES_PER_MS
        task = self._task
        if task is None or not task.started or task.finishing:
            self._violated("audio outside of a task")
        elif not message or len(message) % 2:
            self._violated("audio is not a whole number of samples")
        else:
            task.audio += message
            task.ear.hear(message)
            self._listen(task)
        return self._audio_ms

    async def text(self, message: str) -> None:
        try:
            instruction = json.loads(message)
            header, payload = instruction["header"], instruction["payload"]
            action, task_id = header["action"], header["task_id"]
        except (ValueError, KeyError, TypeError):
            self._violated("not an instruction")
            return
        self._line.heard.texts.append(action)
        self._service.instructions.append(instruction)
        if header.get("streaming") != "duplex":
            self._violated("streaming is not duplex")
        elif action == "run-task":
            self._run(task_id, payload)
        elif action == "finish-task":
            self._finish(task_id, payload)
        else:
            self._violated(f"unknown action {action}")

    async def timed_out(self) -> None:
        if self._task is None:
            self._line.hang_up(None)
        else:
            limit_s = self._service.task_timeout_s
            self._fail("CLIENT_ERROR", f"request timeout after {limit_s:g} seconds.")

    async def fail(self, error: dict[str, str]) -> None:
        said = {"error_code": "InternalError", "error_message": "on demand", **error}
        self._fail(said["error_code"], said["error_message"])

    def _run(self, task_id: Any, payload: Any) -> None:
        service = self._service
        if self._task is not None:
            self._violated("a task is running already")
        elif not isinstance(task_id, str) or not task_id:
            self._violated("task_id is not a text")
        elif any(task.task_id == task_id for task in service.tasks):
            self._violated("task_id was used before")
        elif fault := _payload_fault(payload):
            self._line.violated(fault)
            self._task = Task(task_id, {}, 0)
            self._fail("InvalidParameter", fault)
        else:
            number = next(
                at for at, heard in enumerate(service.connections) if heard is self._line.heard
            )
            self._task = Task(task_id, payload["parameters"], number)
            service.tasks.append(self._task)
            loop = asyncio.get_running_loop()
            loop.call_later(service.start_delay_s, self._start, self._task)

    def _start(self, task: Task) -> None:
        if self._dead:
            return
        if self._service.refuses is not None:
            self._fail(self._service.refuses["error_code"], self._service.refuses["error_message"])
        else:
            task.started = True
            self._tell("task-started", {})

    def _finish(self, task_id: Any, payload: Any) -> None:
        task = self._task
        if task is None or task.task_id != task_id or not task.started or task.finishing:
            self._violated("finish-task of no running task")
            return
        if payload != {"input": {}}:
            self._violated("finish-task with another payload")
            return
        task.finishing = True
        self._sentence(task, len(task.ear.tones), final=True)
        self._tell("task-finished", {"output": {}, "usage": None})
        task.finished = True
        self._task = None

    def _listen(self, task: Task) -> None:
        """Go through the new frames: sentences end at pauses, words make interims."""
        silence_ms = task.parameters.get("max_sentence_silence", self._service.sentence_silence_ms)
        tones = task.ear.tones
        while task.seen < len(tones) and not self._dead:
            task.seen += 1
            if tones[task.seen - 1] >= 0:
                task.quiet_ms = task.beaten_ms = 0.0
            else:
                task.quiet_ms += FRAME_MS
            if task.quiet_ms == silence_ms:
                self._sentence(task, task.seen, final=True)
                task.begin = task.seen
            elif task.quiet_ms == 0 and task.seen % 10 == 0:
                self._sentence(task, task.seen, final=False)
            self._mind_silence(task)

    def _mind_silence(self, task: Task) -> None:
        if task.parameters.get("heartbeat"):
            if task.quiet_ms - task.beaten_ms >= HEARTBEAT_MS:
                task.beaten_ms = task.quiet_ms
                sentence = _sentence("", 0, None, final=False, heartbeat=True)
                self._result({**sentence, "sentence_id": 0}, None)
        elif task.quiet_ms >= self._service.silence_timeout_ms:
            self._dead = True
            self._line.hang_up(None)

    def _sentence(self, task: Task, end: int, *, final: bool) -> None:
        words = task.ear.words(task.begin, end)
        text = " ".join(word for word, _, _ in words)
        if not words or (not final and text == task.interim):
            return
        task.interim = "" if final else text
        begin_ms = round(words[0][1] * 1000)
        end_ms = round(words[-1][2] * 1000) if final else None
        sentence = _sentence(text, begin_ms, end_ms, final=final, heartbeat=False)
        sentence["words"] = [
            {
                "begin_time": round(start_s * 1000),
                "end_time": round(stop_s * 1000),
                "text": word,
                "punctuation": "",
            }
            for word, start_s, stop_s in words
        ]
        if self._service.numbered:
            sentence["sentence_id"] = task.sentences + 1
        duration_s = round(task.ear.audio_ms / 1000)
        for _ in range(1 + (final and self._service.repeats)):
            self._result(sentence, {"duration": duration_s} if final else None)
        task.sentences += final

    def _result(self, sentence: dict[str, Any], usage: dict[str, int] | None) -> None:
        self._tell("result-generated", {"output": {"sentence": sentence}, "usage": usage})

    def _violated(self, problem: str) -> None:
        self._line.violated(problem)
        self._fail("CLIENT_ERROR", problem)

    def _fail(self, code: str, message: str) -> None:
        self._tell("task-failed", {}, error_code=code, error_message=message)
        self._dead = True
        self._line.hang_up(1000)

    def _tell(self, event: str, payload: dict[str, Any], **members: str) -> None:
        if not self._dead:
            task_id = self._task.task_id if self._task else ""
            header = {"task_id": task_id, "event": event, **members, "attributes": {}}
            self._line.tell({"header": header, "payload": payload})


def _sentence(
    text: str, begin_ms: int, end_ms: int | None, *, final: bool, heartbeat: bool
) -> dict[str, Any]:
    return {
        "begin_time": begin_ms,
        "end_time": end_ms,
        "text": text,
        "heartbeat": heartbeat,
        "sentence_end": final,
        "words": [],
    }


def _payload_fault(payload: Any) -> str | None:
    """What is wrong with the payload of ``run-task``."""
    if not isinstance(payload, dict):
        return "payload is not an object"
    for name, value in (("task_group", "audio"), ("task", "asr"), ("function", "recognition")):
        if payload.get(name) != value:
            return f"{name} is not {value}"
    if not str(payload.get("model")).startswith("fun-asr-realtime"):
        return "unknown model"
    if payload.get("input") != {}:
        return "input is not empty"
    parameters = payload.get("parameters")
    if not isinstance(parameters, dict):
        return "no parameters"
    for name, value in parameters.items():
        if not isinstance(value, PARAMETERS.get(name, ())):
            return f"parameter {name} is unknown or of another type"
    if parameters.get("format") != "pcm" or parameters.get("sample_rate") != RATE_HZ:
        return "audio is not PCM at 16 kHz"
    if any(hint not in HINTS for hint in parameters.get("language_hints", ())):
        return "unknown language hint"
    return None


def _refusal(status: HTTPStatus, code: str, message: str) -> Response:
    return answer(status, {"code": code, "message": message})
