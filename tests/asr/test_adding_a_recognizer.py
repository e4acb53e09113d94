"""What the page on adding a recognizer shows is all it takes, and it works."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from http import HTTPStatus
from pathlib import Path

from websockets.http11 import Request, Response

from tests.asr.fakes.common import Conversation, Ear, FakeService, Fault, Heard, Line, answer
from tests.asr.support.tones import FRAME_MS

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "adding-a-recognizer.md"
KEY = "a-key-of-parrot"
RATE_HZ = 16000


class Parrot(FakeService):
    """The service of the page."""

    def refuse(self, request: Request, heard: Heard) -> Response | None:
        if heard.headers.get("authorization") != f"Bearer {KEY}":
            return answer(HTTPStatus.UNAUTHORIZED, {"error": "wrong key"})
        return None

    def converse(self, line: Line) -> Conversation:
        return _Listening(line)


class _Listening(Conversation):
    def __init__(self, line: Line) -> None:
        self._line = line
        self._ear = Ear(RATE_HZ)
        self._begin = 0
        self._utterance = 1
        self._said = ""

    async def audio(self, message: bytes) -> float:
        self._ear.hear(message)
        quiet = self._ear.tones[-20:]
        self._tell(is_final=len(quiet) == 20 and max(quiet) < 0)
        return self._ear.audio_ms

    async def text(self, message: str) -> None:
        if json.loads(message) == {"flush": True}:
            self._tell(is_final=True)
            self._line.tell({"flushed": True})
        else:
            self._line.violated(message)

    async def fail(self, error: dict[str, str]) -> None:
        self._line.hang_up(1011)

    def _tell(self, *, is_final: bool) -> None:
        end = len(self._ear.tones)
        words = self._ear.words(self._begin, end)
        text = " ".join(word for word, _, _ in words)
        if words and (is_final or text != self._said):
            self._line.tell(
                {
                    "utterance": self._utterance,
                    "text": text,
                    "begin_s": words[0][1],
                    "end_s": end * FRAME_MS / 1000 if is_final else words[-1][2],
                    "is_final": is_final,
                }
            )
        self._said = text
        if words and is_final:
            self._begin, self._said = end, ""
            self._utterance += 1


def blocks() -> list[str]:
    """The page's fenced Python."""
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)


async def test_the_page_holds_a_whole_recognizer(tmp_path: Path) -> None:
    """A module and an entry: settings, order, text, and no word lost when the service drops."""
    module, entry = blocks()
    (tmp_path / "parrot.py").write_text(module, encoding="utf-8")
    (tmp_path / "entry.txt").write_text(entry, encoding="utf-8")
    async with Parrot(faults=[Fault(after_ms=1500)]) as service:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.asr.support.page_recognizer"),
            *(str(tmp_path), str(tmp_path / "entry.txt"), "parrot", "alpha bravo charlie delta"),
            cwd=REPOSITORY,
            env={**os.environ, "PARROT_API_KEY": KEY, "PARROT_URL": service.url},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 0, errors.decode()
        assert len(service.connections) == 2
        assert not service.connections[1].violations
    told = json.loads(output.splitlines()[-1])
    assert told["text"] == "alpha bravo charlie delta"
    assert told["providers"] == ["parrot"]
    assert told["order"][0] == "parrot"
    assert "## [parrot]" in told["reference"] and "`PARROT_API_KEY`" in told["reference"]


def test_the_example_is_short_and_complete() -> None:
    """About sixty lines, not counting blank ones and docstrings."""
    module, entry = blocks()
    undocumented = re.sub(r'^ *""".*"""$', "", module, flags=re.M)
    code = [line for line in undocumented.splitlines() if line.strip()]
    assert '"""' not in undocumented
    assert len(code) <= 65
    compile(module, "parrot.py", "exec")
    compile(entry, "entry", "exec")
