"""Runs under the official ``openai`` client in an environment of its own; never imported by tests.

``official_client.py URL KEY PCM_FILE``: transcribes the file over the realtime connection of the
client and validates every event against the client's own types; prints the transcripts as JSON.

``official_client.py --validate``: reads client events, one JSON text a line, and validates them.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path

from openai import AsyncOpenAI
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from pydantic import TypeAdapter

BATCH_BYTES = 4800


async def transcribe(url: str, key: str, pcm: bytes) -> None:
    server_events: TypeAdapter[RealtimeServerEvent] = TypeAdapter(RealtimeServerEvent)
    client = AsyncOpenAI(api_key=key, websocket_base_url=url)
    kinds: list[str] = []
    text = ""
    transcripts: list[str] = []
    async with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        await connection.session.update(
            session={
                "type": "transcription",
                "audio": {
                    "input": {
                        "format": {"type": "audio/pcm", "rate": 24000},
                        "transcription": {"model": "gpt-4o-mini-transcribe", "language": "en"},
                        "turn_detection": {"type": "server_vad", "silence_duration_ms": 300},
                    }
                },
                "include": ["item.input_audio_transcription.logprobs"],
            }
        )
        for start in range(0, len(pcm), BATCH_BYTES):
            audio = base64.b64encode(pcm[start : start + BATCH_BYTES]).decode()
            await connection.input_audio_buffer.append(audio=audio)
        await connection.input_audio_buffer.commit()
        while "error" not in kinds or len(transcripts) < 2:
            raw = await asyncio.wait_for(connection.recv_bytes(), 10)
            server_events.validate_json(raw)
            event = connection.parse_event(raw)
            kinds.append(event.type)
            if event.type == "conversation.item.input_audio_transcription.delta":
                text += event.delta or ""
            elif event.type == "conversation.item.input_audio_transcription.completed":
                assert event.transcript == text, "deltas make up the transcript"
                assert event.logprobs
                transcripts.append(event.transcript)
                text = ""
            elif event.type == "error":
                assert event.error.code == "input_audio_buffer_commit_empty", event.error
    print(json.dumps({"transcripts": transcripts, "kinds": kinds}))


def validate() -> None:
    client_events: TypeAdapter[RealtimeClientEvent] = TypeAdapter(RealtimeClientEvent)
    for line in sys.stdin:
        print(type(client_events.validate_json(line)).__name__)


if __name__ == "__main__":
    if sys.argv[1] == "--validate":
        validate()
    else:
        asyncio.run(transcribe(sys.argv[1], sys.argv[2], Path(sys.argv[3]).read_bytes()))
