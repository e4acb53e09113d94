"""Runs under the official ``openai`` client in an environment of its own; never imported by tests.

``openai_door.py URL MULAW_FILE SPEECH_FILE…``: has the first file heard over the realtime
connection in turns of its own, with every event validated against the client's types, and the
others as files in every format; prints what it was told as JSON.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

from openai import APIStatusError, AsyncOpenAI
from openai.types.beta.realtime import RealtimeServerEvent as BetaServerEvent
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

now: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
beta: TypeAdapter[Any] = TypeAdapter(BetaServerEvent)
BATCH_BYTES = 800


async def turns(client: AsyncOpenAI, codes: bytes) -> dict[str, Any]:
    """Mu-law, two turns that the client ends, and what is answered to mistakes."""
    events: list[dict[str, Any]] = []
    query = {"intent": "transcription", "session": "official", "speaker": "anna"}
    async with client.realtime.connect(extra_query=query) as connection:
        source = {
            "format": {"type": "audio/pcmu"},
            "transcription": {"model": "gpt-4o-mini-transcribe", "language": "en", "prompt": "x"},
            "turn_detection": None,
        }
        session: Any = {"type": "transcription", "audio": {"input": source}}
        await connection.session.update(session=session)
        await connection.input_audio_buffer.commit()
        await connection.response.create()
        for half in (codes[: len(codes) // 2], codes[len(codes) // 2 :]):
            for at in range(0, len(half), BATCH_BYTES):
                audio = base64.b64encode(half[at : at + BATCH_BYTES]).decode()
                await connection.input_audio_buffer.append(audio=audio)
            await connection.input_audio_buffer.commit()
        await connection.input_audio_buffer.clear()
        while sum(event["type"].endswith(".completed") for event in events) < 2:
            raw = await asyncio.wait_for(connection.recv_bytes(), 20)
            now.validate_json(raw, strict=False)
            assert connection.parse_event(raw).type == json.loads(raw)["type"]
            events.append(json.loads(raw))
    return {"events": events}


async def in_beta(client: AsyncOpenAI) -> list[str]:
    """The names of events for clients of the beta."""
    kinds = []
    headers = {"OpenAI-Beta": "realtime=v1"}
    async with client.realtime.connect(
        extra_query={"intent": "transcription"}, extra_headers=headers
    ) as connection:
        update = {
            "type": "transcription_session.update",
            "session": {
                "input_audio_format": "pcm16",
                "input_audio_transcription": {"model": "whisper-1"},
                "turn_detection": None,
            },
        }
        await connection.send(update)  # type: ignore[arg-type]
        audio = base64.b64encode(bytes(9600)).decode()
        await connection.input_audio_buffer.append(audio=audio)
        await connection.input_audio_buffer.commit()
        while not kinds or not kinds[-1].endswith(".completed"):
            raw = await asyncio.wait_for(connection.recv_bytes(), 20)
            event = json.loads(raw)
            if event["type"].startswith("conversation.item.created"):
                beta.validate_json(raw)
            kinds.append(event["type"])
    return kinds


async def files(client: AsyncOpenAI, paths: list[str]) -> dict[str, Any]:
    """Each file as json, the first one in every format and as a stream; errors by their kind."""
    wav = Path(paths[0])
    create: Any = client.audio.transcriptions.create
    told: dict[str, Any] = {}
    for path in map(Path, paths):
        told[path.name] = (await create(file=path, model="whisper-1")).text
    for name in ("text", "srt", "vtt"):
        told[name] = await create(file=wav, model="whisper-1", response_format=name)
    verbose = await create(
        file=wav,
        model="embedded",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        prompt="spelling",
        extra_body={"session": "a file", "speaker": "reader"},
    )
    told["verbose"] = verbose.model_dump()
    stream = await create(file=wav, model="gpt-4o-transcribe", stream=True)
    told["stream"] = [event.model_dump() async for event in stream]
    wrong: list[dict[str, Any]] = [
        {"file": ("speech.mp3", b"ID3" + bytes(100))},
        {"file": ("speech.wav", b"RIFF\0\0\0\0WAVE")},
        {"file": wav, "model": "parrot"},
        {"file": wav, "language": "zh"},
        {"file": wav, "response_format": "diarized_json"},
        {"file": wav, "include": ["logprobs"]},
        {"file": wav, "extra_body": {"unheard": "of"}},
        {"file": wav, "timestamp_granularities": ["word"]},
        {"file": ("big.wav", bytes(26 * 1024 * 1024))},
    ]
    told["errors"] = []
    for asked in wrong:
        try:
            await create(**{"model": "whisper-1", **asked})
        except APIStatusError as error:
            told["errors"].append([error.status_code, error.body])
    return told


async def main(url: str, codes: str, *paths: str) -> None:
    client = AsyncOpenAI(api_key="your-own-api-key", base_url=f"{url}/v1", max_retries=0)
    heard, names, told = await asyncio.gather(
        turns(client, Path(codes).read_bytes()), in_beta(client), files(client, list(paths))
    )
    print(json.dumps({**heard, "beta": names, "files": told}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
