"""``GET /debug/tracks``: what each track does just now, over all workers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec

from edge.api.http import Call, Endpoint
from edge.session.overview import TrackView

MOST = 5000


class TracksQuery(msgspec.Struct, frozen=True):
    """Which tracks are shown."""

    session: Annotated[str, msgspec.Meta(description="Of one session only")] = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST, description="At most so many")] = 500


class TracksOfWorker(msgspec.Struct, frozen=True):
    """What one worker told; None: it did not in time."""

    worker: int
    tracks: list[TrackView] | None


class Track(TrackView, frozen=True, kw_only=True):
    """A track and the worker that carries it."""

    worker: int


class Tracks(msgspec.Struct, frozen=True):
    """Tracks of all workers, those with the most backlog first."""

    tracks: list[Track]
    total: int
    """Those that match, also beyond ``limit``."""
    missing_workers: list[int]
    """Workers that did not tell theirs in time."""


def tracks_endpoint(collect: Callable[[], Awaitable[list[TracksOfWorker]]]) -> Endpoint[Any, Any]:
    """The endpoint, answered from what the workers tell."""

    async def get(call: Call[TracksQuery, None]) -> Tracks:
        told = await collect()
        wanted = call.query.session
        found = [
            Track(worker=each.worker, **msgspec.structs.asdict(view))
            for each in told
            for view in each.tracks or ()
            if not wanted or view.session == wanted
        ]
        found.sort(key=lambda track: track.backlog_ms, reverse=True)
        return Tracks(
            tracks=found[: call.query.limit],
            total=len(found),
            missing_workers=[each.worker for each in told if each.tracks is None],
        )

    return Endpoint(
        method="GET",
        path="/debug/tracks",
        summary="What each track does just now",
        query=TracksQuery,
        answer=Tracks,
        handle=get,
    )
