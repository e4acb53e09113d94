"""What the roles of a meeting said, as cues: without what a reset took back, windows made one."""

from __future__ import annotations

from collections.abc import Iterable

from edge.api.subtitles import Cue, new_cue
from edge.meeting.book import FAMILY
from edge.meeting.records import ROLES, Merged, Utterance
from edge.meeting.view import WINDOWS, Views
from edge.session.store.interface import SessionStore


async def meeting_cues(store: SessionStore, views: Views, session: str) -> list[Cue] | None:
    """The cues of all roles by their starts; None for a session that is no meeting.

    Windows overlap, so a role that has some is told by its merged utterances.
    """
    detail = await store.detail(session)
    if detail is None or not await store.records(session, FAMILY):
        return None
    view = await views.of(session)
    cues: list[Cue] = []
    for role in ROLES:
        said: Iterable[Utterance | Merged]
        said = view.merged(role) if role + WINDOWS in detail.tracks else view.raw(role)
        found = (new_cue(each.start_ms, each.end_ms, role, each.text) for each in said)
        cues += (cue for cue in found if cue is not None)
    return sorted(cues, key=lambda cue: cue.start_ms)
