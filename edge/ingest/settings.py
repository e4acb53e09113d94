"""Settings of the session sockets: where they are served, and what their clients may ask."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edge.option import option

DoorName = Literal["openai", "deepgram", "twilio"]


class DoorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The doors for clients that were written for other services."""

    front_doors: Annotated[
        tuple[DoorName, ...],
        option("Other services whose clients are served: openai, deepgram, twilio"),
    ] = ()
    """``/v1/realtime`` and ``/v1/audio/transcriptions``; ``/v1/listen``; ``/twilio``."""
    file_audio_s: Annotated[
        float, option("A file sent to /v1/audio/transcriptions plays this long at most", gt=0)
    ] = 3600.0
    """Longer ones are answered 400."""


class ListenSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The paths of ``/listen`` and the roles of its clients."""

    listen_paths: Annotated[
        tuple[str, ...], option("Paths that serve session sockets, plain and edge.session.v1")
    ] = ("/listen",)
    """As the URL spells them, without the query; an existing page keeps its own."""
    session_admins: Annotated[
        bool, option("Take clients of edge.session.v1 that come with the role admin")
    ] = False
    """They may end turns of others, mute and rename them and clear the log; who may connect at all
    is decided before."""
    session_connections: Annotated[
        int, option("Session sockets a worker takes at once, listeners included", ge=1)
    ] = 10_000
    """Further upgrades are answered 503."""
    hello_deadline_s: Annotated[
        float, option("A client of edge.session.v1 says hello within so long", gt=0, le=60)
    ] = 10.0
    """Else it is closed with 4001."""


def serves(settings: ListenSettings, path: str) -> bool:
    """Whether a path is one of the session sockets'."""
    return path in settings.listen_paths
