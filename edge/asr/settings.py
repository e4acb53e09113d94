"""Settings of how recognizers are chosen and their connections kept."""

from __future__ import annotations

from typing import Annotated

import msgspec

from edge.option import option


class ChoiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which recognizers there are and in which order they are tried."""

    providers_priority: Annotated[
        tuple[str, ...],
        option(
            "Recognizers in the order they are tried; empty is those with keys, then embedded",
            env="PROVIDERS_PRIORITY",
        ),
    ] = ()
    """The first that is available is the default, the others take over when it fails."""
    enable_dummy_provider: Annotated[
        bool,
        option(
            "Offer the recognizer 'dummy', which only counts audio", env="ENABLE_DUMMY_PROVIDER"
        ),
    ] = False
    """For load tests of everything before a recognizer."""


class SupervisorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a track's recognizer connection is opened, fed, retried and given up."""

    force_commit_timeout_s: Annotated[
        float,
        option(
            "Seconds without packets after which what was said is turned to text; 0 or less: never",
            env="FORCE_COMMIT_TIMEOUT",
            ge=-60,
            le=60,
        ),
    ] = 2.0
    """Ends the utterance of a speaker who mutes, whose recognizer hears no silence."""
    connect_timeout_s: Annotated[
        float, option("Deadline for opening a recognizer connection, in seconds", gt=0, le=60)
    ] = 5.0
    """Passing it counts as a failure like any other."""
    retry_initial_s: Annotated[
        float, option("Pause after a recognizer's first failure, in seconds", gt=0, le=60)
    ] = 0.25
    """Doubles with each further failure; all pauses vary by a fifth either way."""
    retry_max_s: Annotated[
        float, option("Longest pause between two attempts, in seconds", gt=0, le=300)
    ] = 10.0
    """Longer only if the service itself asks for it (Retry-After), and then at most a minute."""
    attempts_per_recognizer: Annotated[
        int, option("Failures in a row after which a track tries the next recognizer", ge=1)
    ] = 3
    """A refusal moves on at once."""
    stable_after_s: Annotated[
        float, option("Life after which a connection without text counts as good", gt=0, le=60)
    ] = 3.0
    """A transcript makes it good at once. Only a good connection resets the pauses."""
    breaker_failures: Annotated[
        int, option("Failures in a row, over all tracks, that stop attempts for a while", ge=1)
    ] = 5
    """Counted per recognizer and worker."""
    breaker_open_s: Annotated[
        float, option("How long attempts are stopped before one track may try", gt=0, le=300)
    ] = 5.0
    """A success of that one track lets all others try again."""
    recognizer_backlog_ms: Annotated[
        int, option("Audio waiting for a slow recognizer before its feed is paused", ge=200)
    ] = 2000
    """The rest waits as packets in the track, and the oldest of those is dropped and counted."""
    recognizer_stall_s: Annotated[
        float, option("How long a recognizer may take no audio before it is replaced", gt=0)
    ] = 10.0
    """The next connection gets the audio since the last final."""
    recognizer_silent_s: Annotated[
        float,
        option("How long a recognizer that owes text may say nothing; 0 is for ever", ge=0, le=60),
    ] = 3.0
    """One that is quiet by design is then asked for a sign of life, and given as long again."""
    recognizer_idle_s: Annotated[
        float,
        option(
            "Seconds without sound after which a track's recognizer is closed; 0 is never",
            env="RECOGNIZER_IDLE",
            ge=0,
            le=86400,
        ),
    ] = 20.0
    """Nothing is lost: it opens again with the next sound, a second of quiet before it included."""
    connects_at_once: Annotated[
        int, option("Connections that may be opening at the same time", ge=1, le=10000)
    ] = 64
    """Per recognizer and worker; a track whose turn has not come keeps its audio."""
