"""Frames of the recorder's protocol: what clients send, checked in its order; what they are told.

Comes in: text and binary messages. Goes out: typed frames, or a ``FrameRefused`` that says which
rule was broken. An error never closes the socket.
"""

from __future__ import annotations

import binascii
import math
import struct
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from edge.errors import EdgescribeError
from edge.meeting.people import Told
from edge.meeting.records import CHUNK_BYTES, RATE_HZ, Capture, Role, parse_role
from edge.meeting.status import Ingests, IngestStatus

FORMAT = "pcm_s16le"
MAX_SEQ = 0x7FFFFFFF
FINAL_FLAG = 0x80000000
"""Set in the number of a binary frame: the stream ends with it, and it may be shorter."""
REASON_UNITS = 120
"""Code units of UTF-16: so clients of the first gateway count."""
CLOSE_REASON = "client-close"
_number = struct.Struct(">I")


class FrameRefused(EdgescribeError):
    """A frame that is answered by an error; ``seq`` is that of a chunk, where it has one."""

    def __init__(self, code: str, detail: str, seq: int | None = None) -> None:
        self.code = code
        self.seq = seq
        super().__init__(detail)


class Frame(msgspec.Struct, frozen=True):
    """A text frame; its members are checked by whoever knows its type."""

    type: object = None
    stream_role: object = None
    meeting_id: object = None
    seq: object = None
    timestamp_ms: object = None
    sample_rate: object = None
    channels: object = None
    format: object = None
    content_b64: object = None
    final: object = None
    interviewer_name: object = None
    teams_interviewer_name: object = None
    teams_participants: object = None
    payload: object = None
    reason: object = None

    def told(self) -> Told:
        """What a ``hello`` says of the meeting."""
        return Told(
            interviewer_name=self.interviewer_name,
            teams_interviewer_name=self.teams_interviewer_name,
            teams_participants=self.teams_participants,
        )


class Sound(msgspec.Struct, frozen=True):
    """A chunk whose description is right; its audio has not been looked at."""

    seq: int
    timestamp_ms: float
    content: str | bytes
    is_final: bool

    def pcm(self) -> bytes:
        """Its samples; raises ``FrameRefused`` when they are not what a chunk holds."""
        content = self.content
        if isinstance(content, str):
            try:
                content = binascii.a2b_base64(content, strict_mode=True)
            except ValueError:
                raise FrameRefused("bad_content", "content_b64 is not base64", self.seq) from None
        size = len(content)
        if size == CHUNK_BYTES or (self.is_final and 0 < size < CHUNK_BYTES and size % 2 == 0):
            return content
        detail = f"a chunk has {CHUNK_BYTES} bytes of audio, this one has {size}"
        if size < CHUNK_BYTES:
            detail += '; only the last one of a stream, with "final": true, may be shorter'
        raise FrameRefused("bad_length", detail, self.seq)


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="ready"):
    """The answer to ``hello``."""

    session_id: str
    stream_role: Role
    target_sample_rate: int = RATE_HZ
    target_channels: int = 1
    target_format: str = FORMAT
    ingest: IngestStatus
    ingest_by_stream: Ingests


class Status(IngestStatus, frozen=True, kw_only=True):
    """The answer to ``status``."""

    ingest_by_stream: Ingests


class Ack(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="ack"):
    """The answer to a chunk: it is stored, and ``key`` says where, or it was already."""

    stream_role: Role
    seq: int
    status: Literal["stored", "duplicate"]
    key: str | UnsetType = UNSET
    last_seq: int
    missing_count: int
    duplicate_count: int


class Pong(msgspec.Struct, frozen=True, tag_field="type", tag="pong"):
    """The answer to ``ping``; ``ts`` in ms since 1970."""

    ts: int
    stream_role: Role


class CaptureAck(msgspec.Struct, frozen=True, tag_field="type", tag="capture_status_ack"):
    """The answer to ``capture_status``: the whole of it as it is now."""

    stream_role: Role
    payload: Capture


class Closing(msgspec.Struct, frozen=True, tag_field="type", tag="closing"):
    """The answer to ``close``; the socket is closed after it."""

    reason: str
    stream_role: Role


class Heard(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="transcript"):
    """What was said, for sockets that ask for it; ms are those of the meeting."""

    stream_role: Role
    text: str
    is_final: bool
    start_ms: int
    end_ms: int
    utterance_id: str | UnsetType = UNSET


class Fault(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="error"):
    """A frame that could not be taken; nothing has changed."""

    detail: str
    code: str
    seq: int | UnsetType = UNSET


encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Frame).decode


def parse(text: bytes) -> Frame:
    """A text frame; raises ``FrameRefused`` for what is no JSON object."""
    try:
        return _decode(text)
    except msgspec.ValidationError:
        raise FrameRefused("bad_frame", "a frame is a JSON object with a type") from None
    except (msgspec.DecodeError, RecursionError):
        raise FrameRefused("bad_json", "a text frame is JSON, and not nested deeply") from None


def parse_binary(data: bytes, now_ms: float) -> Sound:
    """A chunk as a binary frame: its number, four bytes big-endian, and its samples."""
    if len(data) <= _number.size:
        raise FrameRefused("bad_frame", "a binary frame is a number of 4 bytes and then samples")
    (number,) = _number.unpack_from(data)
    seq = number & MAX_SEQ
    if seq == 0:
        raise FrameRefused("bad_seq", "chunks are numbered from 1")
    return Sound(seq, now_ms, data[_number.size :], bool(number & FINAL_FLAG))


def check_chunk(frame: Frame, session: str, role: Role) -> Sound:
    """The description of a chunk, its members looked at in the protocol's order."""
    seq = frame.seq if isinstance(frame.seq, int) and not isinstance(frame.seq, bool) else None
    if seq is None and isinstance(frame.seq, float) and frame.seq.is_integer():
        seq = int(frame.seq)

    def must(holds: bool, code: str, detail: str) -> None:
        if not holds:
            raise FrameRefused(code, detail, seq if seq and 0 < seq <= MAX_SEQ else None)

    must(_is_text(frame.meeting_id), "bad_meeting_id", "meeting_id is missing")
    must(seq is not None and seq > 0, "bad_seq", "seq is a whole number from 1 on")
    must(_is_positive(frame.timestamp_ms), "bad_timestamp", "timestamp_ms is a number above 0")
    must(frame.sample_rate == RATE_HZ, "bad_sample_rate", f"sample_rate is {RATE_HZ}")
    must(_is_one(frame.channels), "bad_channels", "channels is 1")
    must(frame.format == FORMAT, "bad_format", f"format is {FORMAT}")
    must(_is_text(frame.content_b64), "bad_content", "content_b64 is missing")
    check_role(frame, role, seq)
    must(
        frame.meeting_id == session,
        "other_meeting",
        f"meeting_id is {session!r} on this socket",
    )
    must(seq is not None and seq <= MAX_SEQ, "bad_seq", f"seq is {MAX_SEQ} at most")
    content: Any = frame.content_b64
    timestamp: Any = frame.timestamp_ms
    assert seq is not None
    return Sound(seq, float(timestamp), content, frame.final is True)


def check_role(frame: Frame, role: Role, seq: int | None = None) -> None:
    """``stream_role``, where it is given, is that of the URL."""
    given = frame.stream_role
    if given is None or (isinstance(given, str) and not given.strip()):
        return
    known = parse_role(given) if isinstance(given, str) else None
    if known is None:
        raise FrameRefused("bad_role", "stream_role is mixed, teacher or students", seq)
    if known != role:
        raise FrameRefused("other_role", f"stream_role is {role} on this socket", seq)


def reason_of(frame: Frame) -> str:
    """Why a client closes."""
    reason = frame.reason.strip() if isinstance(frame.reason, str) else ""
    units = reason[:REASON_UNITS].encode("utf-16-le", "replace")[: 2 * REASON_UNITS]
    return units.decode("utf-16-le", "ignore") or CLOSE_REASON


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_one(value: object) -> bool:
    return value == 1 and not isinstance(value, bool)


def _is_positive(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0  # type: ignore[arg-type,operator]
