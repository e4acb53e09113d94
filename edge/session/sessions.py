"""A worker's sessions: who comes back to which, how long a lost client is waited for, how they end.

Sessions belong to the worker that opened them: a client that comes back by way of another worker
opens a session there, and this one ends after its grace period.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from edge.audio.origin import MediaOrigin
from edge.audio.track import AudioTrack
from edge.logs import get_logger
from edge.session import traces
from edge.session.attachment import Attachment
from edge.session.interface import SessionOutlet, SessionRequest, TrackHost
from edge.session.live import LiveSession
from edge.session.meters import Meters
from edge.session.settings import SessionSettings
from edge.transport.interface import Close

SUPERSEDED = 4009

Key = tuple[str, str | None]
"""A session's name and a speaker's: whose tracks a connection goes on with."""

_log = get_logger("edge.session.sessions")


class Sessions:
    """Opens, resumes and ends sessions; all methods are for the event loop's thread."""

    def __init__(
        self,
        settings: SessionSettings,
        host: TrackHost,
        new_audio: Callable[[MediaOrigin], AudioTrack],
        meters: Meters,
    ) -> None:
        self._settings = settings
        self._host = host
        self._new_audio = new_audio
        self._meters = meters
        self._active: set[LiveSession] = set()
        self._detached: set[LiveSession] = set()
        """Sessions without a client: awaited for the grace period, or their last finals are."""
        self._by_id: dict[Key, LiveSession] = {}
        """Sessions that a client can come back to, or a newer one of its speaker takes over."""
        self._beside = 0
        """Connections beside the first one of their session."""
        self._graces: dict[LiveSession, asyncio.TimerHandle] = {}
        self._retiring: dict[LiveSession, asyncio.Task[None]] = {}
        self._draining = False

    @property
    def active(self) -> int:
        """Sessions with a client."""
        return len(self._active)

    @property
    def detached(self) -> int:
        """Sessions without one."""
        return len(self._detached)

    def known(self, session_id: str | None, speaker: str | None = None) -> LiveSession | None:
        """What a connection of this session and speaker would go on with."""
        session = None if session_id is None else self._by_id.get((session_id, speaker))
        return None if session is None or session.is_over else session

    def has_room(self, session_id: str | None, speaker: str | None = None) -> bool:
        """Whether such a connection can be taken; coming back takes no room."""
        session = self.known(session_id, speaker)
        if session is not None and not session.is_shared:
            return True
        return self.active + self.detached + self._beside < self._settings.max_sessions

    def attach(
        self, request: SessionRequest, outlet: SessionOutlet, provider: str
    ) -> Attachment | None:
        """A client's place in its session, opened now if need be; None while draining.

        ``provider`` is the first choice of a session that is opened.
        """
        if self._draining:
            return None
        session = self.known(request.session_id, request.speaker)
        if session is None:
            session = self._open(request)
            self._meters.session_opened(provider)
            traces.session_opened(session, provider)
        else:
            if grace := self._graces.pop(session, None):
                grace.cancel()
            self._meters.session_reattached()
        before = len(session.attachments)
        attachment = session.attach(outlet, time.monotonic())
        if session.inherits:
            self._await(session)
        self._beside += max(0, len(session.attachments) - 1) - max(0, before - 1)
        self._detached.discard(session)
        self._active.add(session)
        return attachment

    def release(self, attachment: Attachment, close: Close) -> None:
        """A connection is over: wait for its client, or end what it began."""
        session = attachment.session
        self._meters.connection_closed(close.code)
        if attachment not in session.attachments:
            return  # another has taken its place
        keeps = session.resumable and not attachment.ended and not self._draining
        others = len(session.attachments) - 1
        self._beside -= others > 0
        session.detach(attachment, commit=keeps)
        if not others:
            self._active.discard(session)
            self._detached.add(session)
        if keeps or others:
            self._await(session, close)
        else:
            self._retire(session, close)

    async def drain(self, deadline_s: float) -> None:
        """Open nothing more, flush all tracks; clients that are away are not waited for."""
        self._draining = True
        sessions = (*self._active, *self._detached)
        endings = [
            asyncio.ensure_future(session.finish(min(deadline_s, self._settings.finish_deadline_s)))
            for session in sessions
        ]
        if endings:
            await asyncio.wait(endings, timeout=deadline_s)
        for ending in endings:
            ending.cancel()

    async def stop(self) -> None:
        """End what is left at once."""
        for grace in self._graces.values():
            grace.cancel()
        sessions = (*self._active, *self._detached)
        await asyncio.gather(*(session.abort() for session in sessions))
        retiring = tuple(self._retiring.values())
        for task in retiring:
            task.cancel()
        await asyncio.gather(*retiring, return_exceptions=True)
        for session in sessions:
            traces.session_ended(session)

    def _open(self, request: SessionRequest) -> LiveSession:
        session = LiveSession(request, self._host, self._new_audio, self._settings, self._gone)
        is_one_speaker = request.speaker is not None
        if request.session_id is not None and (session.resumable or is_one_speaker):
            self._by_id[request.session_id, request.speaker] = session
        return session

    def _gone(self, session: LiveSession) -> None:
        """Its tracks are another worker's, or the session was deleted: flush it, forget it."""
        if session not in self._active and session not in self._detached:
            return  # it has ended: its place was asked for before that was known
        self._active.discard(session)
        self._detached.add(session)
        self._beside -= max(0, len(session.attachments) - 1)
        self._retire(session, Close(SUPERSEDED, "", by_peer=False))

    def _await(self, session: LiveSession, close: Close | None = None) -> None:
        """Wait for a client lost by this ``close``; without one for it to go on with its tags."""
        if grace := self._graces.pop(session, None):
            grace.cancel()
        self._graces[session] = asyncio.get_running_loop().call_later(
            self._settings.resume_grace_s, self._give_up, session, close
        )

    def _give_up(self, session: LiveSession, close: Close | None) -> None:
        del self._graces[session]
        if session.attachments:
            session.give_up()
        elif close is not None:
            self._retire(session, close)

    def _retire(self, session: LiveSession, close: Close) -> None:
        """Flush the session's recognizers, then forget it."""
        if grace := self._graces.pop(session, None):
            grace.cancel()
        session_id, speaker = session.request.session_id, session.request.speaker
        if session_id is not None and self._by_id.get((session_id, speaker)) is session:
            del self._by_id[session_id, speaker]
        if session in self._retiring:
            return  # its place is taken while its last finals are awaited
        task = asyncio.get_running_loop().create_task(self._end(session, close))
        self._retiring[session] = task
        task.add_done_callback(lambda task: self._retiring.pop(session, None))

    async def _end(self, session: LiveSession, close: Close) -> None:
        try:
            await session.finish(self._settings.finish_deadline_s)
        finally:
            self._detached.discard(session)
            session.close()
            duration_s = time.monotonic() - session.opened_s
            self._meters.session_closed(duration_s)
            traces.session_ended(session)
            _log.info(
                "session ended",
                session=session.request.session_id,
                close_code=close.code,
                duration_s=round(duration_s, 3),
                interims=session.interims,
                finals=session.finals,
            )
