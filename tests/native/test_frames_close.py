"""Close payloads: what is written can be read, what is read is what ``websockets`` reads."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.exceptions import ProtocolError
from websockets.frames import Close

from _native import frame_writer, frames
from _native.frames import CLOSE, Decoder, FrameError


@given(st.integers(-1, 70_000) | st.integers(1000, 1016), st.text(max_size=140))
@example(1000, "é" * 62)
@example(4999, "𝄞" * 31)
def test_what_may_be_sent_comes_back_with_its_reason_cut_between_characters(
    code: int, reason: str
) -> None:
    try:
        payload = frame_writer.close_payload(code, reason)
    except ValueError:
        with pytest.raises(ProtocolError):
            Close(code, "").check()
        return
    if code == 1005:
        assert payload == b""
        assert frames.parse_close(payload) == (1005, "")
        return
    assert len(payload) <= 125
    told_code, told_reason = frames.parse_close(payload)
    assert told_code == code
    whole = reason.encode("utf-8", "replace").decode()
    assert whole.startswith(told_reason)
    assert told_reason == whole or len(told_reason.encode()) > 123 - 4


@given(st.binary(max_size=125))
@example(b"\x03")
@example(b"\x03\xe8\xff")
@example(b"\x03\xed")
def test_a_close_frame_is_judged_as_websockets_judges_it(payload: bytes) -> None:
    frame = frame_writer.encode_masked(CLOSE, payload, b"\1\2\3\4")
    try:
        expected = Close.parse(payload)
    except (ProtocolError, UnicodeDecodeError) as error:
        with pytest.raises(FrameError) as caught:
            Decoder(1000).decode(frame)
        # Its code is looked at first by us, its reason by them.
        assert caught.value.code in ((1002,) if isinstance(error, ProtocolError) else (1002, 1007))
        return
    assert Decoder(1000).decode(frame) == [(CLOSE, payload)]
    assert frames.parse_close(payload) == (expected.code, expected.reason)
