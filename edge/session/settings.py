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
    enable_transcribe: Annotated[
        bool, option("Serve /transcribe; false answers 404", env="ENABLE_TRANSCRIBE")
    ] = True
    """The endpoint of media servers."""
    use_dispatcher: Annotated[
        bool,
        option("Take connections that do not say as asking for dispatch", env="USE_DISPATCHER"),
    ] = False
    """Counts as an output: such connections need neither sendBack nor sendBackInterim. Nothing is
    dispatched; a warning says so."""
