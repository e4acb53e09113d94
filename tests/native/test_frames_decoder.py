"""Frames to messages: every rule of RFC 6455 section 5, at every place a stream can be cut."""

from __future__ import annotations

import contextlib
import gc
import itertools
import struct
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from _native import frame_writer, frames
from _native.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Decoder, FrameError

KEY = b"\x01\x80\xfe\x7f"
MAX_BYTES = 300
# Longer than anything a damaged 16-bit length can announce: ``websockets`` counts a control frame
# inside a long message against the message's limit, so the two differ close to it.
ROOMY_BYTES = 1 << 17

Item = tuple[int, bytes]


def masked(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    return frame_writer.encode_masked(opcode, payload, KEY, fin=fin)


def decode_all(
    chunks: list[bytes], limit: int = sys.maxsize, max_bytes: int = MAX_BYTES
) -> tuple[list[Item], int]:
    """Everything the chunks hold, and the code of the violation that ended them (0 = none)."""
    decoder = Decoder(max_bytes)
    items: list[Item] = []
    try:
        for chunk in chunks:
            items += decoder.decode(chunk, limit)
            while decoder.pending:
                items += decoder.decode(b"", limit)
    except FrameError as fault:
        return items, fault.code
    return items, 0


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def can_become_utf8(text: bytes) -> bool:
    """Whether some continuation makes it UTF-8; Python knows only whole texts."""
    for rest in (b"", b"\x80", b"\x80\x80", b"\x80\x80\x80", b"\xa0\x80", b"\x90\x80\x80"):
        with contextlib.suppress(UnicodeDecodeError):
            (text + rest).decode()
            return True
    return False


class TestMessages:
    """RFC 6455 5.2 and 5.6."""

    @pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 7, 8, 9, 125, 126, 127, 65535, 65536, 200_001])
    def test_any_length_arrives_unchanged(self, size: int) -> None:
        payload = bytes(i * 7 & 0xFF for i in range(size))
        items, fault = decode_all([masked(BINARY, payload)], max_bytes=1 << 20)
        assert (items, fault) == ([(BINARY, payload)], 0)

    def test_the_hello_of_rfc_6455_section_5_7(self) -> None:
        stream = bytes.fromhex("818537fa213d7f9f4d5158")
        assert decode_all([stream]) == ([(TEXT, b"Hello")], 0)
        assert Decoder(9, masked=False).decode(bytes.fromhex("810548656c6c6f")) == [
            (TEXT, b"Hello")
        ]

    def test_fragments_become_one_message_with_control_frames_between(self) -> None:
        stream = (
            masked(TEXT, b"", fin=False)
            + masked(PING, b"?")
            + masked(CONTINUATION, b"Hel", fin=False)
            + masked(PONG, b"")
            + masked(CONTINUATION, b"lo")
            + masked(BINARY, b"next")
        )
        expected = [(PING, b"?"), (PONG, b""), (TEXT, b"Hello"), (BINARY, b"next")]
        assert decode_all([stream]) == (expected, 0)

    def test_fragments_may_all_be_empty(self) -> None:
        stream = masked(TEXT, b"", fin=False) + masked(CONTINUATION, b"") + masked(TEXT, b"x")
        assert decode_all([stream]) == ([(TEXT, b""), (TEXT, b"x")], 0)

    def test_limit_leaves_the_rest_for_the_next_call(self) -> None:
        decoder = Decoder(MAX_BYTES)
        assert decoder.decode(b"".join(masked(TEXT, b"%d" % i) for i in range(5)), 2) == [
            (TEXT, b"0"),
            (TEXT, b"1"),
        ]
        assert decoder.pending
        assert decoder.decode(masked(TEXT, b"5"), 3) == [(TEXT, b"%d" % i) for i in (2, 3, 4)]
        assert decoder.decode(b"") == [(TEXT, b"5")]
        assert not decoder.pending

    def test_longest_message_is_taken_and_one_byte_more_is_1009(self) -> None:
        assert decode_all([masked(TEXT, b"a" * MAX_BYTES)])[1] == 0
        assert decode_all([masked(TEXT, b"a" * (MAX_BYTES + 1))]) == ([], 1009)

    def test_limit_of_length_counts_all_fragments(self) -> None:
        start = masked(TEXT, b"a" * 200, fin=False)
        assert decode_all([start + masked(CONTINUATION, b"a" * 100)])[1] == 0
        assert decode_all([start + masked(CONTINUATION, b"a" * 101)])[1] == 1009

    def test_too_long_is_known_from_the_header_alone(self) -> None:
        header = struct.pack("!BBQ", 0x82, 0xFF, 1 << 40)
        assert decode_all([header]) == ([], 1009)


class TestViolations:
    """RFC 6455 5.1 to 5.5 and 7.4.1: what came before is returned, then the fault is raised."""

    @pytest.mark.parametrize(
        ("stream", "code"),
        [
            (masked(TEXT, b"x")[:1] + frame_writer.encode(TEXT, b"x")[1:], 1002),
            (frame_writer.encode(TEXT, b"not masked"), 1002),
            (b"\xc1\x80" + KEY, 1002),
            (b"\xa1\x80" + KEY, 1002),
            (b"\x91\x80" + KEY, 1002),
            *[(bytes([0x80 | opcode, 0x80]) + KEY, 1002) for opcode in (3, 4, 5, 6, 7, 11, 13, 15)],
            (b"\x09\x80" + KEY, 1002),
            (b"\x89\xfe\x00\x7e" + KEY + bytes(126), 1002),
            (masked(CONTINUATION, b"of nothing"), 1002),
            (masked(TEXT, b"a", fin=False) + masked(BINARY, b"b"), 1002),
            (b"\x82\xff\x80" + bytes(7) + KEY, 1002),
            (masked(CLOSE, b"\x03"), 1002),
            *[
                (masked(CLOSE, struct.pack("!H", code)), 1002)
                for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
            ],
            (masked(CLOSE, b"\x03\xe8\xff"), 1007),
            (masked(TEXT, b"\xff"), 1007),
            (masked(TEXT, b"\xc3", fin=False) + masked(CONTINUATION, b"("), 1007),
            (masked(TEXT, b"\xed\xa0\x80"), 1007),
        ],
    )
    def test_is_raised_after_the_messages_before_it(self, stream: bytes, code: int) -> None:
        before = masked(TEXT, b"kept")
        for cut_at in range(len(before + stream) + 1):
            whole = before + stream
            chunks = [whole[:cut_at], whole[cut_at:]]
            assert decode_all(chunks) == ([(TEXT, b"kept")], code)

    def test_fault_is_raised_again_and_nothing_more_is_read(self) -> None:
        decoder = Decoder(MAX_BYTES)
        assert decoder.decode(masked(TEXT, b"a") + b"\xff\xff") == [(TEXT, b"a")]
        assert decoder.pending
        assert decoder.ended
        for _ in range(2):
            with pytest.raises(FrameError) as caught:
                decoder.decode(masked(TEXT, b"late"))
            assert caught.value.code == 1002
            assert str(caught.value) == "reserved bits are set"
        assert not decoder.pending

    def test_bytes_after_a_close_frame_are_dropped(self) -> None:
        decoder = Decoder(MAX_BYTES)
        close = masked(CLOSE, b"\x0f\xa1bye")
        assert decoder.decode(close + masked(TEXT, b"late")) == [(CLOSE, b"\x0f\xa1bye")]
        assert decoder.ended
        assert not decoder.pending
        assert decoder.decode(b"\xff\xff\xff") == []

    @pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4001, 4999])
    def test_close_codes_that_may_be_sent_are_returned(self, code: int) -> None:
        payload = frame_writer.close_payload(code, "why")
        assert decode_all([masked(CLOSE, payload)]) == ([(CLOSE, payload)], 0)
        assert frames.parse_close(payload) == (code, "why")

    def test_masked_frames_from_a_server_are_1002(self) -> None:
        with pytest.raises(FrameError):
            Decoder(MAX_BYTES, masked=False).decode(masked(TEXT, b"x"))

    def test_limit_must_be_positive(self) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            Decoder(0)


@given(text=st.binary(max_size=40), at=st.integers(0, 40))
@example(text="Übergrößenträger 𝄞".encode(), at=1)
@example(text=b"\xf4\x90\x80\x80", at=2)
@example(text=b"\xe0\x80\x80", at=0)
@example(text=b"aaaaaaaa\x80aaaaaaa", at=4)
def test_text_is_taken_exactly_when_python_can_decode_it(text: bytes, at: int) -> None:
    try:
        text.decode()
        expected = ([(TEXT, text)], 0)
    except UnicodeDecodeError:
        expected = ([], 1007)
    assert decode_all([masked(TEXT, text)]) == expected
    pieces = masked(TEXT, text[:at], fin=False) + masked(CONTINUATION, text[at:])
    assert decode_all([pieces]) == expected


@given(text=st.binary(max_size=40) | st.text(max_size=12).map(utf8), frame_bytes=st.integers(1, 9))
@example(text=b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited", frame_bytes=1)
@example(text=b"\xed\xa0\x80", frame_bytes=3)
def test_a_text_fails_at_the_first_byte_that_cannot_be_mended(
    text: bytes, frame_bytes: int
) -> None:
    """The message itself is still unfinished then."""
    decoder = Decoder(MAX_BYTES)
    for at in range(len(text)):
        is_first = at % frame_bytes == 0
        if is_first:
            size = min(frame_bytes, len(text) - at)
            frame = masked(CONTINUATION if at else TEXT, text[at : at + size], fin=False)
            assert decoder.decode(frame[: len(frame) - size]) == []
        sent = frame[len(frame) - size + at % frame_bytes :][:1]
        if not can_become_utf8(text[: at + 1]):
            with pytest.raises(FrameError) as caught:
                decoder.decode(sent)
            assert caught.value.code == 1007
            return
        assert decoder.decode(sent) == []


@given(st.text(max_size=30))
def test_valid_text_of_every_script_is_taken(text: str) -> None:
    data = text.encode("utf-8", "ignore")
    assert decode_all([masked(TEXT, data)]) == ([(TEXT, data)], 0)


def client_stream(actions: list[tuple[str, bytes]]) -> bytes:
    """What the ``websockets`` library sends for a list of actions, with random masks."""
    client = ClientProtocol(parse_uri("ws://host/"), state=State.OPEN, max_size=None)
    fragmented = False
    for name, payload in actions:
        if name == "ping":
            client.send_ping(payload[:125])
        elif name == "pong":
            client.send_pong(payload[:125])
        elif fragmented:
            fragmented = name == "more"
            client.send_continuation(payload, fin=not fragmented)
        else:
            fragmented = name == "more"
            client.send_binary(payload, fin=not fragmented)
    return b"".join(client.data_to_send())


def reference(stream: bytes) -> tuple[list[Item], bool]:
    """Messages that the ``websockets`` library's server finds, and whether it fails."""
    server = ServerProtocol(state=State.OPEN, max_size=ROOMY_BYTES)
    server.receive_data(stream)
    items: list[Item] = []
    for event in server.events_received():
        if event.opcode in (Opcode.TEXT, Opcode.BINARY):
            parts, opcode = [bytes(event.data)], int(event.opcode)
            complete = event.fin
        elif event.opcode is Opcode.CONT:
            parts.append(bytes(event.data))
            complete = event.fin
        else:
            items.append((int(event.opcode), bytes(event.data)))
            continue
        if complete:
            items.append((opcode, b"".join(parts)))
    failed = isinstance(server.parser_exc, ProtocolError | PayloadTooBig | UnicodeDecodeError)
    return items, failed


actions = st.lists(
    st.tuples(
        st.sampled_from(["message", "message", "more", "ping", "pong"]),
        st.one_of(st.binary(max_size=20), st.binary(min_size=100, max_size=200)),
    ),
    max_size=8,
)
places = st.lists(st.integers(0, 10_000), max_size=12)


@given(actions=actions, places=places, limit=st.integers(1, 4))
def test_any_stream_cut_anywhere_gives_what_websockets_gives(
    actions: list[tuple[str, bytes]], places: list[int], limit: int
) -> None:
    stream = client_stream(actions)
    items, fault = decode_all(cut(stream, places), limit, ROOMY_BYTES)
    expected, failed = reference(stream)
    assert items == expected
    assert bool(fault) == failed


@given(
    actions=actions,
    places=places,
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=3),
)
def test_damaged_streams_fail_alike_however_they_are_cut(
    actions: list[tuple[str, bytes]], places: list[int], flips: list[tuple[int, int]]
) -> None:
    """Padding completes whatever length the damage announced: websockets judges whole frames."""
    damaged = bytearray(client_stream(actions) or b"\x81\x80abcd")
    for at, bits in flips:
        damaged[at % len(damaged)] ^= bits
    stream = bytes(damaged) + bytes(ROOMY_BYTES)
    whole = decode_all([stream], max_bytes=ROOMY_BYTES)
    assert decode_all(cut(stream, places), 1, ROOMY_BYTES) == whole
    if whole[1] != 1007:
        expected, failed = reference(stream)
        assert whole[0] == expected
        assert (whole[1] != 0) == failed


@given(noise=st.binary(max_size=200), places=places)
def test_noise_never_does_worse_than_fail(noise: bytes, places: list[int]) -> None:
    assert decode_all(cut(noise, places), 2) == decode_all([noise])


def test_announced_length_costs_no_memory_before_it_arrives() -> None:
    header = struct.pack("!BBQ", 0x82, 0xFF, 50_000_000) + KEY
    decoders = [Decoder(1 << 30) for _ in range(200)]
    for decoder in decoders:
        assert decoder.decode(header + b"first") == []
    with open("/proc/self/statm") as statm:
        resident_pages = int(statm.read().split()[1])
    assert resident_pages * 4096 < 2 << 30


def test_decoders_give_back_what_they_hold() -> None:
    payload = bytes(5000)
    before = sys.getrefcount(payload)
    for _ in range(100):
        decoder = Decoder(1 << 20)
        decoder.decode(masked(BINARY, payload, fin=False))
        decoder.decode(masked(CONTINUATION, payload, fin=False)[:-7])
        items = decoder.decode(masked(CONTINUATION, payload)[-7:])
        assert items == []
        del decoder, items
    gc.collect()
    assert sys.getrefcount(payload) == before
