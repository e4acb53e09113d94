"""First messages that show a key, of clients that have no other place for one.

Comes in: a message. Goes out: the key in it; None where it comes later; ``ValueError`` where it
does not.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

MOST_HELD = 4
"""Messages that may come before the one with the key, and are kept for the protocol."""


class Introduction(msgspec.Struct, frozen=True):
    """What a connection says of itself that could not show a key in its handshake."""

    key: str
    session: str | None = None
    """The session that it is for, where its address does not say so."""
    is_event: bool = False
    """Whether it is also an event of the protocol, which then gets it, and answers it or not."""


Introduce = Callable[[bytes], Introduction | None]


class Auth(msgspec.Struct, frozen=True, tag_field="type", tag="auth"):
    """The first message of a recorder."""

    key: str


class Connected(msgspec.Struct, frozen=True, tag_field="event", tag="connected"):
    """What a telephone call says before it starts."""


class CallDetails(msgspec.Struct, frozen=True, rename="camel"):
    """What of a call's start says who it is."""

    call_sid: str = ""
    custom_parameters: dict[str, str] = {}


class CallStart(msgspec.Struct, frozen=True, tag_field="event", tag="start"):
    """The start of a call, with the parameters of its operator. Source: Twilio, Media Streams."""

    start: CallDetails


_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_recorder = msgspec.json.Decoder(Auth)
_call: msgspec.json.Decoder[Connected | CallStart] = msgspec.json.Decoder(Connected | CallStart)


def of_recorder(data: bytes) -> Introduction | None:
    """``{"type":"auth","key":…}``, before anything else."""
    try:
        return Introduction(_recorder.decode(data).key)
    except _UNREADABLE as problem:
        raise ValueError('The first message is {"type":"auth","key":…}') from problem


def of_call(data: bytes) -> Introduction | None:
    """The parameter ``key`` that the operator's TwiML gave the stream."""
    try:
        event = _call.decode(data)
    except _UNREADABLE as problem:
        raise ValueError("The first messages are connected and start") from problem
    if isinstance(event, Connected):
        return None
    parameters = event.start.custom_parameters
    if not parameters.get("key"):
        raise ValueError("A stream shows its key in the parameter key")
    session = parameters.get("session") or event.start.call_sid
    return Introduction(parameters["key"], session, is_event=True)
