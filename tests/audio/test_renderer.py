"""Steps to PCM: the right samples, the right number of them, in batches."""

from __future__ import annotations

import pytest

from _native.opus import BadArgument, Decoder
from edge.audio.renderer import Renderer
from edge.audio.steps import Step, StepKind
from tests.audio.support.packets import speech

RATES_HZ = (8000, 12000, 16000, 24000, 48000)


def packet(payload: bytes, ms: float = 20) -> Step:
    return Step(StepKind.PACKET, int(ms * 48), payload)


def rendered(rate_hz: int, *steps: Step, batch_ms: int = 100) -> bytes:
    batches: list[bytes] = []
    renderer = Renderer(rate_hz, batch_ms, batches.append)
    for step in steps:
        renderer.play(step)
    renderer.flush()
    return b"".join(batches)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_packets_are_decoded_straight_at_the_rate_asked_for(rate_hz: int) -> None:
    packets = speech(20)
    decoder = Decoder(rate_hz)
    assert rendered(rate_hz, *map(packet, packets)) == b"".join(map(decoder.decode, packets))


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_every_step_has_its_exact_length(rate_hz: int) -> None:
    steps = [
        packet(speech(1, ms=120)[0], 120),
        Step(StepKind.CONCEAL, 120),
        Step(StepKind.CONCEAL, 5760),
        Step(StepKind.SILENCE, 48),
        Step(StepKind.SILENCE, 4800),
        Step(StepKind.FEC, 960, speech(5)[4]),
        packet(speech(5)[4]),
    ]
    samples = sum(step.samples for step in steps)
    assert len(rendered(rate_hz, *steps)) * 48000 == 2 * samples * rate_hz


def test_a_loss_is_recovered_from_the_copy_in_the_next_packet() -> None:
    before, _, after = speech(60, loss_percent=30)[50:53]
    decoder = Decoder(16000)
    expected = decoder.decode(before) + decoder.recover(after, 320) + decoder.decode(after)
    assert (
        rendered(16000, packet(before), Step(StepKind.FEC, 960, after), packet(after)) == expected
    )


def test_a_loss_is_concealed_from_what_was_heard_last() -> None:
    packets = speech(60)
    decoder = Decoder(16000)
    expected = b"".join(map(decoder.decode, packets)) + decoder.conceal(320)
    assert rendered(16000, *map(packet, packets), Step(StepKind.CONCEAL, 960)) == expected
    assert any(expected[-640:])


@pytest.mark.parametrize("payload", [b"\xff\xff", b"\x0b", b""])
@pytest.mark.parametrize("kind", [StepKind.PACKET, StepKind.FEC])
def test_what_the_decoder_refuses_is_concealed(kind: StepKind, payload: bytes) -> None:
    packets = speech(60)
    decoder = Decoder(16000)
    expected = b"".join(map(decoder.decode, packets)) + decoder.conceal(320)
    assert rendered(16000, *map(packet, packets), Step(kind, 960, payload)) == expected


def test_it_says_which_payload_the_decoder_refused() -> None:
    renderer = Renderer(16000, 100, lambda batch: None)
    assert renderer.play(packet(speech(1)[0]))
    assert not renderer.play(packet(b"\xff\xff"))
    assert renderer.play(Step(StepKind.CONCEAL, 960))


def test_silence_is_zeros_after_any_sound() -> None:
    steps = [*map(packet, speech(60)), Step(StepKind.SILENCE, 4800)] * 2
    assert not any(rendered(24000, *steps)[-4800:])


def test_stereo_packets_are_mixed_to_mono() -> None:
    packets = speech(20, channels=2)
    decoder = Decoder(16000)
    pcm = rendered(16000, *map(packet, packets))
    assert pcm == b"".join(map(decoder.decode, packets))
    assert len(pcm) == 20 * 640


@pytest.mark.parametrize(
    ("packet_ms", "batch_ms", "delivered_ms"),
    [(20, 100, 100), (20, 20, 20), (60, 100, 120), (120, 20, 120), (40, 1000, 1000), (60, 20, 60)],
)
def test_batches_hold_whole_packets_and_at_least_the_time_asked_for(
    packet_ms: int, batch_ms: int, delivered_ms: int
) -> None:
    batches: list[bytes] = []
    renderer = Renderer(48000, batch_ms, batches.append)
    payload = speech(1, ms=packet_ms)[0]
    for _ in range(10 * delivered_ms // packet_ms):
        renderer.play(packet(payload, packet_ms))
    assert [len(batch) // 96 for batch in batches] == [delivered_ms] * 10
    assert renderer.waiting == 0


def test_what_waits_for_its_batch_is_known_and_can_be_had() -> None:
    batches: list[bytes] = []
    renderer = Renderer(16000, 100, batches.append)
    renderer.play(packet(speech(1)[0]))
    assert (renderer.waiting, batches) == (960, [])
    renderer.flush()
    renderer.flush()
    assert [len(batch) for batch in batches] == [640]


def test_a_rate_opus_does_not_know_is_refused() -> None:
    with pytest.raises(BadArgument, match="44100"):
        Renderer(44100, 100, lambda batch: None)
