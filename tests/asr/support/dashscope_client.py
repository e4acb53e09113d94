"""Run by the interpreter that has the official ``dashscope`` package: recognize a file.

``python dashscope_client.py URL KEY SPEECH [FRAME_BYTES]`` prints what its callbacks were told.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from pathlib import Path
from typing import Any

import dashscope
from dashscope.audio.asr import Recognition, RecognitionCallback, RecognitionResult
from dashscope.common.error import InvalidTask


class Keeper(RecognitionCallback):
    """Keeps what the client tells."""

    def __init__(self) -> None:
        self.told: dict[str, Any] = {"results": [], "errors": [], "completed": 0, "usages": []}
        self.over = threading.Event()

    def on_event(self, result: RecognitionResult) -> None:
        sentence = result.get_sentence()
        ended = RecognitionResult.is_sentence_end(sentence)
        self.told["results"].append([sentence["text"], ended, sentence.get("sentence_id")])
        if ended:
            times = [sentence["begin_time"], sentence["end_time"]]
            self.told.setdefault("times", []).append(times)
            self.told["usages"].append(result.get_usage(sentence))

    def on_complete(self) -> None:
        self.told["completed"] += 1
        self.over.set()

    def on_error(self, result: RecognitionResult) -> None:
        self.told["errors"].append([result.status_code, result.code, result.message])
        self.over.set()


def main(url: str, key: str, speech: bytes, frame_bytes: int) -> None:
    dashscope.api_key = key
    dashscope.base_websocket_api_url = url
    keeper = Keeper()
    recognition = Recognition(
        model="fun-asr-realtime", callback=keeper, format="pcm", sample_rate=16000, heartbeat=True
    )
    # It refuses a task whose thread was over before it looked; what went wrong has been told.
    with contextlib.suppress(InvalidTask):
        recognition.start()
    for start in range(0, len(speech), frame_bytes):
        if keeper.over.is_set():
            break
        recognition.send_audio_frame(speech[start : start + frame_bytes])
    if not keeper.over.is_set():
        recognition.stop()
    keeper.over.wait(20)
    print(json.dumps(keeper.told))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]).read_bytes(), int(sys.argv[4]))
