"""Messages to frames: the shortest header, the right mask, and refusals of what may not be sent."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode

from _native import frame_writer, frames

sizes = pytest.mark.parametrize("size", [0, 1, 7, 125, 126, 65535, 65536, 100_000])


@sizes
def test_server_frames_are_byte_for_byte_those_of_websockets(size: int) -> None:
    payload = bytes(size)
    for opcode in (frames.TEXT, frames.BINARY):
        expected = Frame(Opcode(opcode), payload).serialize(mask=False)
        assert frame_writer.encode(opcode, payload) == expected


@sizes
def test_client_frames_undo_to_the_payload(size: int) -> None:
    payload = bytes(i & 0xFF for i in range(size))
    frame = frame_writer.encode_masked(frames.BINARY, payload, b"\x10\x20\x30\x40")
    assert frames.Decoder(1 << 20).decode(frame) == [(frames.BINARY, payload)]


@given(
    payloads=st.lists(st.binary(max_size=300) | st.integers(0, 65535).map(bytes), max_size=6),
    spare=st.integers(0, 3),
)
def test_many_frames_are_those_made_one_by_one(payloads: list[bytes], spare: int) -> None:
    keys = bytes(range(7, 7 + 4 * len(payloads) + spare))
    one_by_one = b"".join(
        frame_writer.encode_masked(frames.BINARY, payload, keys[4 * at : 4 * at + 4])
        for at, payload in enumerate(payloads)
    )
    assert frame_writer.encode_masked_many(frames.BINARY, payloads, keys) == one_by_one


@pytest.mark.parametrize(
    ("opcode", "payloads", "error"),
    [
        (frames.PING, [b""], ValueError),
        (frames.CONTINUATION, [b""], ValueError),
        (frames.BINARY, [b"", b""], ValueError),
        (frames.BINARY, [bytes(65536)], ValueError),
        (frames.BINARY, [None], TypeError),
        (frames.BINARY, [bytearray(2)], TypeError),
    ],
)
def test_many_frames_refuse_what_they_cannot_send(
    opcode: int, payloads: list[bytes], error: type[Exception]
) -> None:
    with pytest.raises(error):
        frame_writer.encode_masked_many(opcode, payloads, b"\1\2\3\4")


def test_fragments_and_any_buffer() -> None:
    assert frame_writer.encode(frames.TEXT, bytearray(b"ab"), fin=False) == b"\x01\x02ab"
    assert frame_writer.encode(frames.CONTINUATION, memoryview(b"cd")) == b"\x80\x02cd"


@pytest.mark.parametrize("opcode", [-1, 3, 7, 11, 16])
def test_unknown_opcodes_are_refused(opcode: int) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        frame_writer.encode(opcode, b"")


def test_control_frames_are_short_and_whole() -> None:
    frame_writer.encode(frames.PING, bytes(125))
    with pytest.raises(ValueError, match="125"):
        frame_writer.encode(frames.PING, bytes(126))
    with pytest.raises(ValueError, match="never split"):
        frame_writer.encode(frames.PING, b"", fin=False)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="4 bytes"):
        frame_writer.encode_masked(frames.TEXT, b"", b"abc")
    with pytest.raises(TypeError):
        frame_writer.encode(frames.TEXT, "text")  # type: ignore[arg-type]


@pytest.mark.parametrize("code", [1000, 1003, 1007, 1014, 3000, 4999])
def test_close_payload_is_that_of_websockets(code: int) -> None:
    assert frame_writer.close_payload(code, "Tschüß") == Close(code, "Tschüß").serialize()


def test_close_without_a_code_is_empty() -> None:
    assert frame_writer.close_payload(1005, "ignored") == b""
    assert frames.parse_close(b"") == (1005, "")


@pytest.mark.parametrize("code", [0, 999, 1004, 1006, 1015, 2999, 5000])
def test_codes_that_may_not_be_sent_are_refused(code: int) -> None:
    with pytest.raises(ValueError, match="may not be sent"):
        frame_writer.close_payload(code)


@given(st.text())
def test_reason_is_cut_between_characters(reason: str) -> None:
    payload = frame_writer.close_payload(1000, reason)
    assert len(payload) <= 125
    code, kept = frames.parse_close(payload)
    assert code == 1000
    whole = reason.encode("utf-8", "replace").decode()
    assert whole.startswith(kept)
    assert kept == whole or len(payload) >= 122


@given(
    st.binary(max_size=400),
    st.binary(max_size=9),
    st.binary(max_size=9),
    st.binary(min_size=4, max_size=4),
)
def test_base64_in_a_frame_is_what_encoding_and_masking_one_after_the_other_give(
    data: bytes, head: bytes, tail: bytes, key: bytes
) -> None:
    message = head + base64.b64encode(data) + tail
    expected = frame_writer.encode_masked(frames.TEXT, message, key)
    assert frame_writer.encode_masked_base64(head, data, tail, key) == expected


def test_base64_of_a_long_batch_has_a_long_frame_head() -> None:
    data = bytes(range(256)) * 400
    expected = frame_writer.encode_masked(
        frames.TEXT, b"<" + base64.b64encode(data) + b">", b"key!"
    )
    assert frame_writer.encode_masked_base64(b"<", data, b">", b"key!") == expected
    with pytest.raises(ValueError, match="4 bytes"):
        frame_writer.encode_masked_base64(b"", data, b"", b"123")
