"""Run in a process of its own: registers a recognizer as a page of the documents says.

``python -m tests.asr.support.page_recognizer FOLDER ENTRY_FILE NAME WORDS`` adds the modules in
FOLDER to ``edge.asr``, puts the entry into the registry, reads the settings from the environment,
speaks the words into a track under a supervisor, and prints what came of it as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import edge.asr
from edge.asr import registry


def register(entry_file: str, folder: str) -> None:
    """Do what a person would do in ``edge/asr/registry.py``; before settings are collected."""
    edge.asr.__path__.append(folder)
    head, _, entry = Path(entry_file).read_text(encoding="utf-8").partition("Entry(")
    names = {"Entry": registry.Entry}
    exec(head, names)
    registry.ENTRIES = (eval(f"Entry({entry}", names), *registry.ENTRIES)


async def speak(name: str, words: str) -> dict[str, object]:
    from edge.cli.config import reference
    from edge.compose import recognizer_config
    from edge.settings import load
    from tests.asr.support.supervision import scene, until

    environment = dict(os.environ)
    recognizers = registry.Recognizers(recognizer_config(load(environment=environment).settings))
    await recognizers.start()
    async with scene(*recognizers.choices(name)) as played:
        for word in words.split():
            await played.speaker.say(word)
        await until(lambda: played.listener.finals)
        await played.supervisor.finish(5)
    await recognizers.stop()
    return {
        "text": played.listener.text,
        "providers": sorted({final.provider for final in played.listener.finals}),
        "order": recognizers.survey.order,
        "reference": reference(),
    }


if __name__ == "__main__":
    register(sys.argv[2], sys.argv[1])
    print(json.dumps(asyncio.run(speak(sys.argv[3], sys.argv[4]))))
