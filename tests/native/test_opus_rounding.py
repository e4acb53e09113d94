"""16-bit PCM is libopus's own, sample for sample, though it is rounded here."""

from __future__ import annotations

import ctypes
import random
from array import array
from collections.abc import Iterator

import pytest

from _native import opus
from _native.opus import Decoder, Encoder
from tests.support.speech import speech_packets

_SIGNALS = 300


class Reference:
    """``opus_decode``, called in the library that the extension is linked with."""

    def __init__(self, rate_hz: int, channels: int) -> None:
        self._library = ctypes.CDLL(opus.__file__)
        self._library.opus_decoder_create.restype = ctypes.c_void_p
        self._channels = channels
        self._decoder = ctypes.c_void_p(self._library.opus_decoder_create(rate_hz, channels, None))
        self._pcm = ctypes.create_string_buffer(2 * 2 * 5760)

    def decode(self, packet: bytes) -> bytes:
        samples = self._library.opus_decode(self._decoder, packet, len(packet), self._pcm, 5760, 0)
        assert samples > 0
        return self._pcm.raw[: 2 * self._channels * samples]

    def close(self) -> None:
        self._library.opus_decoder_destroy(self._decoder)


def loud_packets(channels: int) -> Iterator[bytes]:
    """Squares and noise, up to full scale: their decoded form goes beyond it."""
    chance = random.Random(channels)
    encoder = Encoder(48000, channels)
    for _ in range(_SIGNALS):
        size = 960 * channels
        level = chance.choice((100, 8000, 32767, 32767))
        half_period = chance.randrange(8, 400) * channels
        if chance.random() < 0.5:
            samples = [level if at // half_period % 2 else -level for at in range(size)]
        else:
            samples = [chance.randint(-level, level) for _ in range(size)]
        yield encoder.encode(array("h", samples).tobytes())


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate_hz", [8000, 24000, 48000])
def test_every_sample_is_that_of_libopus(rate_hz: int, channels: int) -> None:
    reference, decoder = Reference(rate_hz, channels), Decoder(rate_hz, channels)
    packets = [*speech_packets(100), *loud_packets(1), *loud_packets(2)]
    loudest = 0
    for packet in packets:
        expected = reference.decode(packet)
        assert decoder.decode(packet) == expected
        loudest = max(loudest, *array("h", expected))
    reference.close()
    assert loudest > 32700, "nothing had to be bent back below full scale"
    run, out = Decoder(rate_hz, channels), bytearray(2 * channels * rate_hz)
    played, samples = run.decode_run_into(packets[:40], out)
    again = Reference(rate_hz, channels)
    whole = b"".join(map(again.decode, packets[:40]))
    again.close()
    assert played == 40
    assert bytes(out[: 2 * channels * samples]) == whole
