"""The JSON messages of ``edge.session.v1``; docs/session-protocol.md explains them to page authors.

Every message is an object whose ``type`` says which it is. Members that are not known are ignored,
so that either side may be newer than the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

SUBPROTOCOL = "edge.session.v1"
Role = Literal["speaker", "listener", "admin"]
Operation = Literal["end_turn", "clear", "rename", "mute", "configure", "history", "leave"]

Name = Annotated[str, Meta(min_length=1, max_length=256)]
CommandId = Annotated[str, Meta(min_length=1, max_length=60)]
Count = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]


class Resume(Struct, frozen=True):
    """What a client has already: the last offset it saw and the last ``ack`` it got."""

    epoch: Annotated[str, Meta(max_length=64)]
    offset: Count
    audio_seq: Annotated[int, Meta(ge=0, le=0xFFFFFFFF)] | None = None
    """Given, also as 0, it says that the numbers of its audio go on."""


class Audio(Struct, frozen=True):
    """The format of every audio frame of a connection."""

    encoding: Literal["pcm16", "opus"] = "pcm16"
    """Signed 16-bit little-endian samples, channels interleaved; or one Opus packet a frame."""
    rate: int = 16000
    """Hz of ``pcm16``; Opus says by itself."""
    channels: int = 1


class Hello(Struct, frozen=True, tag_field="type", tag="hello"):
    """The first message of a client."""

    role: Role = "listener"
    resume: Resume | None = None
    audio: Audio = Audio()
    conflate_ms: Annotated[int, Meta(ge=0, le=60_000)] = 100
    """Least time between two ``part`` messages of one speaker."""
    lost_ms: Annotated[float, Meta(ge=0)] | None = None
    """How long the client was without a connection."""


class Command(Struct, frozen=True, tag_field="type", tag="cmd"):
    """Something to be done once; what ``data`` holds depends on ``op``."""

    id: CommandId
    op: Operation
    data: Raw = Raw(b"{}")


class Ping(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="ping"):
    """Answered by a ``pong`` with the same ``id``, from either side."""

    id: str | int | UnsetType = UNSET


class Pong(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="pong"):
    """The answer to a ``ping``."""

    id: str | int | UnsetType = UNSET


Request = Hello | Command | Ping | Pong


class SpeakerData(Struct, frozen=True, forbid_unknown_fields=True):
    """``end_turn``: whose turn; a speaker's own unless an admin names another."""

    speaker: Name | None = None


class RenameData(Struct, frozen=True, forbid_unknown_fields=True):
    """``rename``: the name that people see; the speaker's name in the log stays."""

    name: Name
    speaker: Name | None = None


class MuteData(Struct, frozen=True, forbid_unknown_fields=True):
    """``mute``: audio of a muted speaker is acknowledged and not heard."""

    muted: bool = True
    speaker: Name | None = None


class ConfigureData(Struct, frozen=True, forbid_unknown_fields=True):
    """``configure``: values to keep with the session; null removes one."""

    values: dict[Name, str | int | float | bool | None]


class HistoryData(Struct, frozen=True, forbid_unknown_fields=True):
    """``history``: the entries that follow ``after``."""

    after: Count = 0
    limit: Annotated[int, Meta(ge=1, le=200)] = 100


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """``clear`` and ``leave`` need no data."""


class Snapshot(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="snapshot"):
    """Finals up to the welcome's ``offset``, in order; ``more``: another page follows.

    The first page is a member of ``welcome``, the others are messages.
    """

    finals: Sequence[Raw]
    """Each as its ``ev``."""
    more: bool


class LimitsOffered(Struct, frozen=True):
    """What a client has to keep to, and what it may rely on."""

    message_bytes: int
    resume_grace_ms: int
    ping_interval_ms: int
    conflate_ms: int


class Welcome(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="welcome"):
    """The answer to ``hello``."""

    session: str
    conn: str
    """This connection's name in ``join`` and ``leave``."""
    role: Role
    epoch: str
    offset: int
    """Where the client stands now; what it gets next follows it."""
    recovered: bool
    """Whether nothing is missing since the offset it gave."""
    audio_ack: int
    """The last audio frame that need not be sent again; 0: none."""
    server_time: int
    """Milliseconds since 1970."""
    limits: LimitsOffered
    speaker: str | UnsetType = UNSET
    snapshot: Snapshot | UnsetType = UNSET


class PartMessage(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="part"):
    """What a speaker has said of a turn so far."""

    speaker: str
    turn: int
    rev: int
    """Grows with each version of a turn's text."""
    text: str
    stable: int
    """Leading characters (code points) that will not change."""
    eager: bool = False
    """Whether the recognizer thinks that the turn has ended, and may still take it back."""


class Ack(Struct, frozen=True, tag_field="type", tag="ack"):
    """All audio up to frame ``seq`` has been taken."""

    seq: int


class Problem(Struct, frozen=True):
    """Why something was not done."""

    code: str
    message: str
    retry: bool
    """Whether the same may succeed later."""


class Result(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="res"):
    """What became of the command with this ``id``."""

    id: str
    ok: bool
    data: Raw | UnsetType = UNSET
    err: Problem | UnsetType = UNSET


class Drain(Struct, frozen=True, tag_field="type", tag="drain"):
    """The gateway stops: it closes with 1012 and wants to be left for ``retry_in_ms`` then."""

    retry_in_ms: int
    deadline_ms: int
    """Within so long what was said is finished and delivered."""


class Err(Struct, frozen=True, tag_field="type", tag="err"):
    """Something is wrong; a close follows where the connection cannot go on."""

    code: str
    message: str
    retry: bool


_decoder = msgspec.json.Decoder(Request)
encode = msgspec.json.Encoder().encode


class BadMessage(Exception):
    """A text frame is not one of the messages; ``is_json`` says whether it is an object at all."""

    def __init__(self, message: str, *, is_json: bool) -> None:
        self.is_json = is_json
        super().__init__(message)


def decode_request(data: bytes) -> Request:
    """A client's message; raises ``BadMessage``, which may quote a word of it: not for logs."""
    try:
        request: Request = _decoder.decode(data)
        return request
    except msgspec.ValidationError as error:
        raise BadMessage(str(error), is_json=True) from None
    except (msgspec.DecodeError, RecursionError):
        raise BadMessage("it is not JSON", is_json=False) from None


DATA: dict[str, msgspec.json.Decoder[Struct]] = {
    op: msgspec.json.Decoder(kind)
    for op, kind in {
        "end_turn": SpeakerData,
        "clear": Nothing,
        "rename": RenameData,
        "mute": MuteData,
        "configure": ConfigureData,
        "history": HistoryData,
        "leave": Nothing,
    }.items()
}
"""What reads the data of each operation."""
