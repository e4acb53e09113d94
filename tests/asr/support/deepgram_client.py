"""Runs under the official ``deepgram-sdk`` in an environment of its own; never imported by tests.

``deepgram_client.py v1|v2 URL KEY AUDIO_FILE OPTIONS``: streams the file to the endpoint with the
client's own connection, as OPTIONS (JSON) say, validates every message against the client's own
types, and prints them as JSON. ``sizes`` of OPTIONS are the bytes of each message, ``every_s`` is
the time between two (0: all at once).

``deepgram_client.py validate``: reads messages of clients, one a line with its version before it,
and validates them.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from deepgram import AsyncDeepgramClient
from deepgram.environment import DeepgramClientEnvironment
from deepgram.listen.v1 import types as v1
from deepgram.listen.v2 import types as v2

MESSAGES: dict[str, dict[str, Any]] = {
    "v1": {
        "Results": v1.ListenV1Results,
        "Metadata": v1.ListenV1Metadata,
        "UtteranceEnd": v1.ListenV1UtteranceEnd,
        "SpeechStarted": v1.ListenV1SpeechStarted,
    },
    "v2": {
        "Connected": v2.ListenV2Connected,
        "TurnInfo": v2.ListenV2TurnInfo,
        "Error": v2.ListenV2FatalError,
        "ConfigureSuccess": v2.ListenV2ConfigureSuccess,
    },
}
OURS: dict[str, dict[str, Any]] = {
    "v1": {
        "KeepAlive": v1.ListenV1KeepAlive,
        "Finalize": v1.ListenV1Finalize,
        "CloseStream": v1.ListenV1CloseStream,
    },
    "v2": {"ForceEndTurn": v2.ListenV2ForceEndTurn, "CloseStream": v2.ListenV2CloseStream},
}


async def talk(version: str, url: str, key: str, audio: bytes, options: dict[str, Any]) -> None:
    environment = DeepgramClientEnvironment(
        base="http://unused", agent=url, production=url, agent_rest="http://unused"
    )
    client = AsyncDeepgramClient(api_key=key, environment=environment)
    told: list[dict[str, Any]] = []
    listen = client.listen.v1 if version == "v1" else client.listen.v2
    sizes = options.pop("sizes")
    every_s = options.pop("every_s", 0.0)
    async with listen.connect(**options) as connection:
        at = 0
        for size in sizes:
            await connection.send_media(audio[at : at + size])
            at += size
            await asyncio.sleep(every_s)
        if version == "v1":
            await connection.send_keep_alive()
            await connection.send_finalize()
        else:
            await connection.send_force_end_turn()
        await connection.send_close_stream()
        while True:
            try:
                message = await asyncio.wait_for(connection.recv(), 10)
            except Exception as error:  # the client's own, of whichever library it uses
                code = getattr(getattr(error, "rcvd", None), "code", None)
                told.append({"type": "closed", "code": code})
                break
            raw = message.dict() if hasattr(message, "dict") else message
            MESSAGES[version][raw["type"]].model_validate(raw)
            told.append(raw)
    print(json.dumps(told, default=str))


def validate() -> None:
    for line in sys.stdin:
        version, _, text = line.partition(" ")
        kind = OURS[version][json.loads(text)["type"]]
        print(type(kind.model_validate_json(text)).__name__)


if __name__ == "__main__":
    if sys.argv[1] == "validate":
        validate()
    else:
        version, url, key, path, options = sys.argv[1:]
        asyncio.run(talk(version, url, key, Path(path).read_bytes(), json.loads(options)))
