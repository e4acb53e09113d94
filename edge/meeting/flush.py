"""Live recognizers told to say all that is left, on whichever workers they run.

Comes in: roles of a session. Goes out: their last finals in the session's log.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable

from edge.logs import get_logger
from edge.meeting.records import Role
from edge.session.claim import is_held
from edge.session.store import commands
from edge.session.store.interface import SessionStore

FLUSH_WITHIN_S = 10.0
TAKEN_WITHIN_S = 2.0
"""A holder that lives has begun by then."""

_log = get_logger("edge.meeting.flush")


async def flush(
    store: SessionStore, session: str, roles: Iterable[Role], within_s: float = FLUSH_WITHIN_S
) -> None:
    """End the recognizers of roles, and return when what they said is in the log.

    Holders that have died are not waited for, slow ones no longer than ``within_s``. Audio that
    comes meanwhile opens recognizers again. Raises what the store raises.
    """
    await asyncio.gather(*(_flush(store, session, role, within_s) for role in roles))


async def _flush(store: SessionStore, session: str, role: Role, within_s: float) -> None:
    if not await is_held(store, session, role):
        return
    asked = commands.Command(f"{commands.FLUSH} {secrets.token_hex(8)}", role, commands.FLUSH, b"")
    answer = await commands.send(
        store, session, asked, within_s, taken_within_s=min(TAKEN_WITHIN_S, within_s)
    )
    if answer is None:
        _log.info("a live recognizer did not flush in time", session=session, role=role)
