"""What a media server is told: who the gateway is, and what was said."""

from __future__ import annotations

from msgspec import UNSET

from edge.ingest.events import Alternative, Info, InfoConfig, Participant, TranscriptionResult
from edge.session.interface import SessionHost, SessionRequest, SpokenLine, participant_id
from edge.version import VERSION


def result_of(line: SpokenLine, with_times: bool) -> TranscriptionResult:
    """An interim or final result; its times are told to clients that asked for them."""
    transcript = line.transcript
    confidence = transcript.confidence
    text = transcript.text
    return TranscriptionResult(
        transcript=(
            Alternative(text=text)
            if confidence is None
            else Alternative(confidence=confidence, text=text),
        ),
        is_interim=not transcript.is_final,
        message_id=transcript.item_id,
        participant=Participant(participant_id(line.tag), line.tag),
        timestamp=transcript.timestamp_unix_ms,
        language=transcript.language or UNSET,
        speaker=UNSET if transcript.speaker is None else transcript.speaker,
        start_ms=round(line.start_ms) if with_times else UNSET,
        end_ms=round(line.end_ms) if with_times else UNSET,
    )


def info_of(host: SessionHost, request: SessionRequest) -> Info:
    """What the gateway says of itself first, to a client of this session."""
    offer = host.offer
    return Info(
        version=VERSION,
        provider=request.provider or offer.default_provider,
        providers_available=list(offer.available_providers),
        config=InfoConfig(
            providers_priority=list(offer.providers_priority),
            force_commit_timeout=offer.force_commit_s,
            session_resume_enabled=offer.resume,
            use_dispatcher=bool(request.use_dispatcher),
        ),
        session_id=request.session_id or UNSET,
    )
