"""Objects of OpenAI's Realtime protocol: what the service sends, and what it takes as a session.

Source: the API reference of Realtime transcription, ``session.update`` and its beta form
``transcription_session.update``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

RATE_HZ = 24000
GA_SESSION = ("type", "audio", "include")


def error_object(members: dict[str, str | None]) -> dict[str, str | None]:
    """An error with these members, and all that every error has."""
    return {"type": "server_error", "code": None, "message": "", "param": None, **members}


def logprobs(tokens: Sequence[str]) -> list[dict[str, Any]]:
    """The same probability for each token."""
    return [{"token": token, "logprob": -0.1, "bytes": list(token.encode())} for token in tokens]


def described(session: dict[str, Any]) -> dict[str, Any]:
    """The session as the service tells it."""
    return {
        "id": "sess_1",
        "object": "realtime.transcription_session",
        "type": "transcription",
        **session,
    }


def ga_fault(session: Any) -> str | None:
    """What is wrong with the session of ``session.update``."""
    if not isinstance(session, dict) or session.get("type") != "transcription":
        return "session.type is not transcription"
    if unknown := set(session) - set(GA_SESSION):
        return f"unknown members {sorted(unknown)}"
    given = session.get("audio", {}).get("input", {})
    if given.get("format") != {"type": "audio/pcm", "rate": RATE_HZ}:
        return "session.audio.input.format is not PCM at 24 kHz"
    return _common_fault(given.get("transcription"), given.get("turn_detection"))


def beta_fault(session: Any) -> str | None:
    """What is wrong with the session of ``transcription_session.update``."""
    if not isinstance(session, dict) or session.get("input_audio_format") != "pcm16":
        return "session.input_audio_format is not pcm16"
    return _common_fault(session.get("input_audio_transcription"), session.get("turn_detection"))


def _common_fault(transcription: Any, turn_detection: Any) -> str | None:
    if not isinstance(transcription, dict) or not isinstance(transcription.get("model"), str):
        return "no transcription model"
    if any(not isinstance(value, str) for value in transcription.values()):
        return "transcription members are not strings"
    if turn_detection is not None and turn_detection.get("type") not in (
        "server_vad",
        "semantic_vad",
    ):
        return "unknown turn detection"
    return None
