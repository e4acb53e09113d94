"""Settings of sessions: admission, limits of one connection, and how long an end may take."""

from __future__ import annotations

from typing import Annotated

import msgspec

from edge.option import option


class SessionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How many sessions and tracks a worker carries and what one connection may ask of it."""

    max_sessions: Annotated[int, option("Sessions a worker takes at once", ge=1)] = 1000
    """Further upgrades are answered 503."""
    max_tracks: Annotated[int, option("Tracks a worker takes at once", ge=1)] = 2000
    """Further tags are refused with the error code ``overloaded``."""
    max_tags: Annotated[int, option("Tags one connection may open", ge=1)] = 500
    """Further tags are refused with the error code ``too_many_tags``."""
    max_events_per_s: Annotated[
        int, option("Events a second one connection may send before it is read more slowly", ge=50)
    ] = 5000
    """A second's worth may come in one burst."""
    finish_deadline_s: Annotated[
        float, option("Longest wait for the last finals when tracks end", gt=0, le=60)
    ] = 10.0
    """Applies to ``session-end``, a lost connection and a drain alike."""
    session_resume_enabled: Annotated[
        bool,
        option("Keep the session of a lost client for its return", env="SESSION_RESUME_ENABLED"),
    ] = True
    """Applies to connections with a ``sessionId``."""
    resume_grace_s: Annotated[
        float,
        option(
            "How long a lost client may take to come back, in seconds",
            env="SESSION_RESUME_GRACE_PERIOD",
            gt=0,
            le=600,
        ),
    ] = 15.0
    """Its decoders and recognizer connections stay open for so long."""
    missed_finals: Annotated[
        int, option("Finals kept for a client that is away", ge=1, le=100_000)
    ] = 1000
    """Per session; the oldest are dropped and counted."""
    broadcast_transcripts: Annotated[
        bool,
        option("Tell recognizers what the other tags have said", env="BROADCAST_TRANSCRIPTS"),
    ] = False
    """As context, to those that can use it; at most once a second."""
    broadcast_transcripts_max_size: Annotated[
        int,
        option("Characters of what the others said", env="BROADCAST_TRANSCRIPTS_MAX_SIZE", ge=64),
    ] = 5120
    """The oldest lines are left out."""
    enable_transcribe: Annotated[
        bool, option("Serve /transcribe; false answers 404", env="ENABLE_TRANSCRIBE")
    ] = True
    """The endpoint of media servers."""
    use_dispatcher: Annotated[
        bool,
        option("Take connections that do not say as asking for dispatch", env="USE_DISPATCHER"),
    ] = False
    """``useDispatcher`` in a connection's query wins. Counts as an output: such connections need
    neither sendBack nor sendBackInterim."""
