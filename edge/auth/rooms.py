"""Room tokens: one secret, and for each session a token that is good for it alone, for ever.

For media servers, whose URL is written down once: ``room.<hex>``, the HMAC-SHA256 of the session's
name. Changing the secret takes all of them back.
"""

from __future__ import annotations

import hashlib
import hmac

from edge.auth.grants import USUAL, Grant

PREFIX = "room."


def room_token(secret: str, session: str) -> str:
    """The token of a session."""
    mac = hmac.new(secret.encode(), b"edgescribe room\n" + session.encode(), hashlib.sha256)
    return PREFIX + mac.hexdigest()


def room_grant(secret: str, token: str, session: str | None) -> Grant | None:
    """What a token allows in the session that is asked for; None: it is not that session's."""
    if not secret or not token.startswith(PREFIX) or session is None:
        return None
    if not hmac.compare_digest(room_token(secret, session).encode(), token.encode()):
        return None
    return Grant(name="room", scopes=USUAL, session=session)
