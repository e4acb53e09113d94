"""The gateway as a connection sees it that had to show a credential."""

from __future__ import annotations

import msgspec

from edge.session.attachment import Attachment
from edge.session.interface import (
    Quota,
    Rights,
    SessionHost,
    SessionOutlet,
    SessionRequest,
)
from edge.session.live_track import LiveTrack
from edge.transport.interface import Close


class GrantedHost:
    """A ``SessionHost`` that knows what its one connection may do, and counts what it does.

    ``grant`` comes later for a connection that shows its credential in its first message; until
    then it has no rights.
    """

    def __init__(self, host: SessionHost) -> None:
        self._host = host
        self.settings = host.settings
        self.offer = host.offer
        self.dumps = host.dumps
        self.ledger = host.ledger
        self.stability = host.stability
        self._quota: Quota | None = None
        self._session: str | None = None
        self.rights: Rights | None = Rights(speak=False, listen=False, administer=False)

    def grant(self, rights: Rights, quota: Quota, session: str | None) -> None:
        """``session``: the one that it may enter; None: any."""
        self.rights, self._quota, self._session = rights, quota, session

    def has_room(self, session_id: str | None, speaker: str | None = None) -> bool:
        """Whether such a connection can be taken."""
        return self._host.has_room(session_id, speaker)

    def resumes(self, session_id: str | None, speaker: str | None = None) -> bool:
        """Whether such a connection would go on with tracks there are."""
        return self._host.resumes(session_id, speaker)

    def problem(self, request: SessionRequest) -> str | None:
        """Why the recognizer of such a session would refuse it."""
        return self._host.problem(request)

    def attach(self, request: SessionRequest, outlet: SessionOutlet) -> Attachment | None:
        """As the gateway does, if the connection may speak there."""
        is_elsewhere = self._session is not None and request.session_id != self._session
        if self.rights is None or not self.rights.speak or is_elsewhere:
            return None
        return self._host.attach(msgspec.structs.replace(request, quota=self._quota), outlet)

    def play(self, track: LiveTrack) -> None:
        """Let a track that is due play."""
        self._host.play(track)

    def release(self, attachment: Attachment, close: Close) -> None:
        """The connection is over."""
        self._host.release(attachment, close)
