"""Packets decoded in one call: the same sound as one by one, and a clear end before a bad one."""

from __future__ import annotations

import pytest

from _native.opus import BadArgument, Decoder, InvalidPacket
from tests.support.speech import speech_packets


def test_a_run_of_packets_decodes_to_what_they_decode_to_one_by_one() -> None:
    packets = speech_packets(40)
    one_by_one = b"".join(map(Decoder(24000).decode, packets))
    out = bytearray(len(one_by_one) + 10)
    assert Decoder(24000).decode_run_into(packets, out, 10) == (40, 40 * 480)
    assert out[10:] == one_by_one


@pytest.mark.parametrize("bad", [b"", b"\xff\xff\xff"], ids=["empty", "damaged"])
def test_a_run_ends_before_a_packet_that_cannot_be_decoded(bad: bytes) -> None:
    packets = speech_packets(3)
    decoder, out = Decoder(24000), bytearray(24000)
    assert decoder.decode_run_into([*packets, bad, *packets], out) == (3, 3 * 480)
    with pytest.raises(InvalidPacket):
        decoder.decode_into(bad, out)
    assert decoder.decode_run_into(packets, out) == (3, 3 * 480)


def test_a_run_ends_where_the_output_does() -> None:
    out = bytearray(2 * 480 * 2 + 100)
    assert Decoder(24000).decode_run_into(speech_packets(5), out) == (2, 2 * 480)
    assert out[-100:] == bytes(100)
    with pytest.raises(BadArgument):
        Decoder(24000).decode_run_into(speech_packets(5), out, 1)
