"""What a Jitsi bridge sends to a transcriber, computed in advance: texts and when each is due.

The wire format is Voximplant's as the bridge writes it: numbers as JSON strings, ``event`` at both
ends of an object. ``chunk`` is the RTP sequence number unwrapped (it starts anywhere from 0 to
65535), ``timestamp`` the RTP timestamp on a time base common to all tags. No socket is used here.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from math import log10
from random import Random

import msgspec
import numpy as np

from _native.opus import Encoder
from edge.demo.speech import Speech

CLOCK_HZ = 48000
FRAME_MS = 20
FRAME_S = FRAME_MS / 1000
_FRAME_TICKS = CLOCK_HZ * FRAME_MS // 1000
_DTX_BYTES = 2
"""An encoder's packet of at most this many bytes need not be sent (opus_encoder.c, DTX)."""
_SPEECH_DBOV = 55
"""Quieter than this (in -dBov, RFC 6464) a frame is announced as ``vad: false``."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One participant: what they say and when they begin."""

    tag: str
    speech: Speech
    start_s: float = 0.0
    """When the first frame is captured, on the connection's clock."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """How the bridge encodes and how the way to it treats the packets."""

    loss: float = 0.02
    """Share of a tag's packets that never arrive; its first and last one always do."""
    late: float = 0.01
    """Share of a tag's packets that arrive one or two packets late."""
    bitrate_bps: int = 32000
    fec: bool = True
    """Carry a copy of each frame in the packet after it."""
    dtx: bool = True
    """Leave packets out while a speaker is silent."""
    audio_levels: bool = True
    """Newer bridges add ``audioLevel`` and ``vad``."""
    seed: int = 1


class Tally(msgspec.Struct, kw_only=True):
    """What became of one tag's frames; ``encoded = dtx + dropped + sent``."""

    encoded: int = 0
    dtx: int = 0
    """Frames the encoder left out in silence: no packet, no chunk number."""
    dropped: int = 0
    """Packets lost on the way: their chunk numbers are missing."""
    sent: int = 0
    late: int = 0
    """Packets among ``sent`` that follow one with a higher chunk number."""


class Departure(msgspec.Struct, frozen=True):
    """One message and the second it is due, counted from the opening of the connection."""

    at_s: float
    text: str


class Schedule(msgspec.Struct, frozen=True):
    """All messages of a connection up to the ``session-end`` (not included), in order."""

    departures: list[Departure]
    tallies: dict[str, Tally]
    audio_s: float
    """Seconds of speech of all tags together."""


class _Packet(msgspec.Struct):
    """A packet that was encoded and is not DTX; ``at_s`` is when it reaches the gateway."""

    at_s: float
    chunk: int
    timestamp: int
    payload: bytes
    level: int
    late: bool = False


def build_schedule(
    sources: Sequence[Source],
    line: Line,
    progress: Callable[[float], None] = lambda done: None,
) -> Schedule:
    """Encode every source and lay its packets out in time.

    The same arguments give the same schedule. ``progress`` is told the share of the audio encoded.
    """
    audio_s = sum(source.speech.duration_s for source in sources)
    encoded_s = 0.0
    tallies: dict[str, Tally] = {}
    events: list[tuple[float, str, _Packet | None]] = []
    for index, source in enumerate(sources):
        chance = Random(f"{line.seed} {index} {source.tag}")
        tally = tallies[source.tag] = Tally()
        packets = _encode(source, line, tally, chance.randrange(65536))
        arrived = _weather(packets, line, tally, chance)
        events.append((source.start_s, source.tag, None))
        events += [(packet.at_s, source.tag, packet) for packet in arrived]
        encoded_s += source.speech.duration_s
        progress(encoded_s / audio_s)
    events.sort(key=lambda event: event[0])
    departures = [Departure(0.0, info_message())]
    for number, (at_s, tag, packet) in enumerate(events, 1):
        if packet is None:
            text = start_message(number, tag)
        else:
            level = packet.level if line.audio_levels else None
            text = media_message(number, tag, packet.chunk, packet.timestamp, packet.payload, level)
        departures.append(Departure(at_s, text))
    return Schedule(departures, tallies, audio_s)


def encode_frames(speech: Speech, line: Line) -> Iterator[tuple[bytes, int]]:
    """Opus packets of 20 ms, each with its RFC 6464 audio level; the last frame is zero-padded."""
    encoder = Encoder(
        speech.rate_hz,
        1,
        bitrate_bps=line.bitrate_bps,
        fec=line.fec,
        dtx=line.dtx,
        loss_percent=max(1, round(100 * line.loss)) if line.fec else 0,
    )
    frame_bytes = 2 * (speech.rate_hz * FRAME_MS // 1000)
    for start in range(0, len(speech.pcm), frame_bytes):
        pcm = speech.pcm[start : start + frame_bytes].ljust(frame_bytes, b"\0")
        yield encoder.encode(pcm), audio_level(pcm)


def audio_level(pcm: bytes) -> int:
    """The level of 16-bit samples in -dBov: 0 is the loudest, 127 silence (RFC 6464 section 3)."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float64) / 32768
    power = float(samples @ samples) / max(1, len(samples))
    return 127 if power <= 0 else max(0, min(127, round(-10 * log10(power))))


def _encode(source: Source, line: Line, tally: Tally, first_chunk: int) -> list[_Packet]:
    """Packets of a source in the order of capture, without those DTX leaves out."""
    packets: list[_Packet] = []
    for index, (payload, level) in enumerate(encode_frames(source.speech, line)):
        tally.encoded += 1
        if len(payload) <= _DTX_BYTES:
            tally.dtx += 1
            continue
        packets.append(
            _Packet(
                at_s=source.start_s + (index + 1) * FRAME_S,
                chunk=first_chunk + len(packets),
                timestamp=round(source.start_s * CLOCK_HZ) + index * _FRAME_TICKS,
                payload=payload,
                level=level,
            )
        )
    return packets


def _weather(packets: list[_Packet], line: Line, tally: Tally, chance: Random) -> list[_Packet]:
    """Drop and delay packets; returns those that arrive, in order of arrival."""
    inner = range(1, max(1, len(packets) - 1))
    lost = set(chance.sample(inner, min(len(inner), round(line.loss * len(packets)))))
    kept = [packet for index, packet in enumerate(packets) if index not in lost]
    tally.sent = len(kept)
    tally.dropped = len(packets) - len(kept)
    index = 1
    while index < len(kept) - 2:
        behind = chance.choice((1, 2))
        window = kept[index : index + behind + 1]
        # A packet can only be overtaken while its successors follow at the pace of speech.
        if chance.random() < line.late and window[-1].at_s - window[0].at_s < 2.5 * FRAME_S:
            window[0].at_s = window[-1].at_s
            window[0].late = True
            kept[index : index + behind + 1] = [*window[1:], window[0]]
            tally.late += 1
            index += behind
        index += 1
    return kept


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()


def media_message(
    number: int, tag: str, chunk: int, timestamp: int, payload: bytes, level: int | None = None
) -> str:
    """A ``media`` event; ``level`` in -dBov adds the members of newer bridges."""
    levels = ""
    if level is not None:
        levels = f',"audioLevel":{level},"vad":{"true" if level < _SPEECH_DBOV else "false"}'
    return (
        f'{{"event":"media","sequenceNumber":"{number}","media":{{"tag":{_quoted(tag)}'
        f',"chunk":"{chunk}","timestamp":"{timestamp}"'
        f',"payload":"{b64encode(payload).decode()}"{levels}}},"event":"media"}}'
    )


def start_message(number: int, tag: str) -> str:
    """The ``start`` event that announces a tag's format."""
    endpoint = tag.rpartition("-")[0] or tag
    return (
        f'{{"event":"start","sequenceNumber":"{number}","start":{{"tag":{_quoted(tag)}'
        ',"mediaFormat":{"encoding":"opus","sampleRate":48000,"channels":2}'
        f',"customParameters":{{"endpointId":{_quoted(endpoint)}}}}},"event":"start"}}'
    )


def info_message() -> str:
    """What a bridge says of itself when the connection opens."""
    return '{"event":"info","application":"jitsi-videobridge","version":"2.3","event":"info"}'


def ping_message(number: int) -> str:
    """A ``ping``; the ``pong`` must carry the same number."""
    return f'{{"event":"ping","id":{number},"event":"ping"}}'


def session_end_message() -> str:
    """The end of transcription; the bridge closes with 1001 right after it."""
    return '{"event":"session-end","event":"session-end"}'
