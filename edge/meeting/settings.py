"""What an operator may choose about meetings."""

from __future__ import annotations

from typing import Annotated

import msgspec

from edge.option import option


class MeetingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Chunks, recognition and the service that tells voices apart."""

    max_seq_jump: Annotated[
        int,
        option(
            "Chunks that a stream may skip at once; one further ahead is refused",
            env="MAX_SEQ_JUMP",
            ge=1,
            le=86_400,
        ),
    ] = 3600
    asr_enabled: Annotated[bool, option("Recognize what meetings say", env="ASR_ENABLED")] = True
    asr_realtime_enabled: Annotated[
        bool,
        option(
            "Recognize meetings as they are spoken; otherwise window by window",
            env="ASR_REALTIME_ENABLED",
        ),
    ] = True
    asr_window_seconds: Annotated[
        int,
        option("Seconds in one window of a meeting", env="ASR_WINDOW_SECONDS", ge=1, le=300),
    ] = 10
    asr_hop_seconds: Annotated[
        int,
        option(
            "Seconds between the ends of two windows, at most those in one",
            env="ASR_HOP_SECONDS",
            ge=1,
            le=300,
        ),
    ] = 3
    asr_timeout_ms: Annotated[
        int,
        option(
            "How long the recognition of one window may take, in ms",
            env="ASR_TIMEOUT_MS",
            ge=0,
        ),
    ] = 45_000
    """0 is 15000."""
    inference_base_url: Annotated[
        str,
        option(
            "Address of the service that tells voices apart; empty: none", env="INFERENCE_BASE_URL"
        ),
    ] = ""
    inference_api_key: Annotated[
        str | None, option("Key of that service", env="INFERENCE_API_KEY", secret=True)
    ] = None
    inference_resolve_path: Annotated[
        str, option("Path of its call that names a voice", env="INFERENCE_RESOLVE_PATH")
    ] = "/speaker/resolve"
    inference_timeout_ms: Annotated[
        int,
        option(
            "How long that call may take, with its repetition",
            env="INFERENCE_TIMEOUT_MS",
            ge=100,
            le=60_000,
        ),
    ] = 15_000
