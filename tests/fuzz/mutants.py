"""A million damaged inputs through the native decoders: nothing may happen but their own errors.

    python -m tests.fuzz.mutants --count 250000 --seed 1

Each target starts from inputs that are right and damages them: bits, bytes, pieces left out,
doubled, swapped between inputs, lengths set to extremes. Prints the build, how many of each were
taken and refused, and what memory did over the second half; the status is 1 when memory grew, when
the leak sanitizer finds some that is lost, or when anything else went wrong.

A new parser is one more entry in ``TARGETS``: a function that makes its seeds and returns what is
done with one damaged input, and answers "taken" or "refused …".
"""

from __future__ import annotations

import argparse
import base64
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from _native import frame_writer, frames, ogg, opus, webm
from _native.envelope import scan_media
from tests.fuzz.guard import GuardedBuffer
from tests.fuzz.leaks import is_leaking
from tests.support import containers

GROWTH_MB = 8.0
"""More resident memory than this over the second half is a leak."""
EXTREMES = (
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xfe",
    b"\x7f\xff",
    b"\x80" + bytes(7),
    b"\xff" * 8,
)

Rng = random.Random
Target = Callable[[Rng], str]


def damage(rng: Rng, data: bytes, others: list[bytes]) -> bytes:
    """``data`` damaged once, or up to four times; ``others`` lend pieces."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(7)
        if kind == 0 and out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif kind == 1 and out:
            out[at % len(out)] = rng.randrange(256)
        elif kind == 2:
            del out[at : at + rng.randint(1, 16)]
        elif kind == 3:
            out[at:at] = out[at : at + rng.randint(1, 64)]
        elif kind == 4:
            extreme = rng.choice(EXTREMES)
            out[at : at + len(extreme)] = extreme
        elif kind == 5:
            del out[at:]
        else:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            out[at : at + rng.randrange(32)] = other[start : start + rng.randint(1, 32)]
    return bytes(out)


def lane_target(rng: Rng) -> Target:
    """Streams of masked frames, cut into reads anyhow."""
    seeds = [
        frame_writer.encode_masked(opcode, payload, rng.randbytes(4), fin=fin)
        for opcode, payload, fin in (
            (1, b"", True), (1, b"Hello", True), (1, "grüße 𝄞".encode() * 9, True),
            (1, "grü".encode(), False), (0, "ße".encode(), True), (0, b"", False),
            (2, rng.randbytes(126), True), (2, rng.randbytes(700), False), (9, b"ping", True),
            (10, rng.randbytes(125), True), (8, b"\x03\xe8bye", True), (8, b"", True),
        )
    ]  # fmt: skip

    def once(rng: Rng) -> str:
        stream = b"".join(rng.choices(seeds, k=rng.randint(1, 5)))
        stream = damage(rng, stream, seeds)
        decoder = frames.Decoder(rng.choice((1, 125, 1000, 65536)), masked=rng.random() < 0.95)
        at = 0
        try:
            while at < len(stream) or decoder.pending:
                size = rng.randint(1, 1 + len(stream))
                for opcode, payload in decoder.decode(stream[at : at + size], rng.randint(0, 4)):
                    if opcode == frames.CLOSE:
                        frames.parse_close(payload)
                    elif opcode == frames.TEXT:
                        payload.decode()
                at += size
                if at >= len(stream):
                    decoder.decode(b"")
        except frames.FrameError as fault:
            return f"refused {fault.code}"
        return "taken"

    return once


def envelope_target(rng: Rng) -> Target:
    """Media events of bridges."""
    seeds = []
    for n in range(1, 40):
        tag = f"a{n}-" + "é" * (n % 3)
        payload = base64.b64encode(rng.randbytes(n * 5)).decode()
        media = f'"tag":"{tag}","chunk":"{n * 7}","timestamp":"{n * 960}","payload":"{payload}"'
        event = f'{{"event":"media","sequenceNumber":"{n}","media":{{{media}}},"event":"media"}}'
        seeds.append(event.encode())

    def once(rng: Rng) -> str:
        return "refused" if scan_media(damage(rng, rng.choice(seeds), seeds)) is None else "taken"

    return once


def opus_target(rng: Rng) -> Target:
    """Packets of every mode, into decoders that live on with what they took.

    libopus itself is not sanitized: packets and PCM lie in front of forbidden memory.
    """
    seeds: list[bytes] = []
    for bitrate, fec in ((8000, False), (16000, True), (32000, False), (96000, False)):
        encoder = opus.Encoder(bitrate_bps=bitrate, fec=fec, loss_percent=20 if fec else 0)
        for frame_ms in (2.5, 10, 20, 60):
            samples = int(48 * frame_ms)
            pcm = [rng.randint(-9000, 9000) for _ in range(samples)]
            seeds.append(
                encoder.encode(b"".join(s.to_bytes(2, "little", signed=True) for s in pcm))
            )
    rates = (8000, 12000, 16000, 24000, 48000)
    decoders = [opus.Decoder(rate, channels) for rate in rates for channels in (1, 2)]
    packet_guard, pcm_guard = GuardedBuffer(1 << 16), GuardedBuffer(23_040)

    def once(rng: Rng) -> str:
        packet = packet_guard.place(damage(rng, rng.choice(seeds), seeds))
        decoder = rng.choice(decoders)
        out = pcm_guard.room(rng.choice((0, 100, 4000, 23_040)))
        way = rng.randrange(4)
        try:
            if way == 0:
                decoder.decode(packet)
            elif way == 1:
                decoder.decode_into(packet, out, rng.randint(0, 4000))
            elif way == 2:
                decoder.recover_into(packet, decoder.rate_hz // 50, out, 0)
            else:
                opus.packet_samples(packet)
                opus.packet_channels(packet)
                opus.packet_has_fec(packet)
        except (opus.OpusError, ValueError) as error:
            return f"refused {type(error).__name__}"
        return "taken"

    return once


def ogg_target(rng: Rng) -> Target:
    """Ogg streams of Opus: pages of every kind, in pieces."""
    packets = [bytes([rng.randrange(32) << 3]) + rng.randbytes(rng.choice((0, 60, 254, 900)))
               for _ in range(30)]  # fmt: skip
    muxer = ogg.Muxer(7, pre_skip=312)
    seeds = [muxer.headers(), muxer.pages([rng.randbytes(70_000), *packets], last=True)]
    muxer = ogg.Muxer(8, 2)
    seeds += [muxer.headers(), *(muxer.pages(packets[at : at + 3]) for at in range(0, 30, 3))]

    def once(rng: Rng) -> str:
        stream = b"".join(rng.choices(seeds, k=rng.randint(1, 5)))
        return pieces(rng, ogg.Demuxer(), damage(rng, stream, seeds), ogg.OggError)

    return once


def webm_target(rng: Rng) -> Target:
    """WebM recordings of Opus, laced or not, in pieces."""
    packets = [bytes([rng.randrange(32) << 3]) + rng.randbytes(60) for _ in range(30)]
    video = containers.element("ae", containers.number("d7", 2) + containers.element("86", b"V_X"))
    header = containers.webm_header(others=video, delay_ns=6_500_000)
    blocks = [
        containers.simple_block(track, at, packets[at]) for at in range(30) for track in (1, 2)
    ]
    blocks += [containers.simple_block(1, 0, *packets[:7], lacing=lacing) for lacing in (1, 2, 3)]
    blocks += [containers.block_group(1, -5, packet) for packet in packets[:5]]
    seeds = [header, containers.webm(packets), *blocks]
    seeds += [containers.cluster(at, *blocks[at : at + 5]) for at in range(0, 30, 5)]

    def once(rng: Rng) -> str:
        stream = header + b"".join(rng.choices(seeds, k=rng.randint(1, 5)))
        return pieces(rng, webm.Demuxer(), damage(rng, stream, seeds), webm.WebmError)

    return once


def pieces(
    rng: Rng, demuxer: ogg.Demuxer | webm.Demuxer, stream: bytes, refusal: type[Exception]
) -> str:
    """Feed a damaged stream in pieces; what is held must stay bounded."""
    at = 0
    try:
        while at < len(stream):
            size = rng.choice((1, 40, 1000, 70_000))
            demuxer.feed(stream[at : at + size])
            at += size
            assert demuxer.pending_bytes < 70_000
            if rng.random() < 0.01:
                demuxer.lost()
    except refusal:
        return "refused"
    return "taken"


TARGETS: dict[str, Callable[[Rng], Target]] = {
    "lane": lane_target,
    "envelope": envelope_target,
    "opus": opus_target,
    "ogg": ogg_target,
    "webm": webm_target,
}


def resident_mb() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def run(name: str, count: int, seed: int) -> tuple[Counter[str], float]:
    """So many inputs to a target: its answers, and the memory's growth in the second half (MB)."""
    rng = random.Random(f"{name} {seed}")
    once = TARGETS[name](rng)
    answers: Counter[str] = Counter()
    for _ in range(count // 2):
        answers[once(rng)] += 1
    before_mb = resident_mb()
    for _ in range(count - count // 2):
        answers[once(rng)] += 1
    return answers, resident_mb() - before_mb


def main() -> int:
    """Run every target; 0 when nothing was found."""
    parser = argparse.ArgumentParser(description="Damaged inputs through the native decoders.")
    parser.add_argument("--count", type=int, default=350_000, help="inputs for each target")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same inputs")
    parser.add_argument("--build", help="insist on this build of the extensions")
    args = parser.parse_args()
    if args.build not in (None, opus.build()):
        print(f"the extensions are a {opus.build()} build, not {args.build}", file=sys.stderr)
        return 1
    total = 0
    leaks = 0
    for name in TARGETS:
        began_s = time.monotonic()
        answers, grown_mb = run(name, args.count, args.seed)
        total += answers.total()
        leaks += grown_mb > GROWTH_MB
        detail = ", ".join(f"{count:,} {answer}" for answer, count in sorted(answers.items()))
        print(
            f"{name}: {answers.total():,} inputs in {time.monotonic() - began_s:.0f} s: {detail};"
            f" memory {grown_mb:+.1f} MB in the second half",
            flush=True,
        )
    found = f"{leaks} leak(s) found" if leaks else "nothing found"
    print(f"{total:,} inputs, {opus.build()} build, seed {args.seed}: {found}", flush=True)
    return 1 if leaks else 0


if __name__ == "__main__":
    # Here, because the sanitizer does not see what the frame of a running function refers to.
    STATUS = main()
    LEAKING = is_leaking()
    if LEAKING is not None:
        print("the leak sanitizer found lost memory" if LEAKING else "no memory is lost")
    sys.exit(1 if LEAKING else STATUS)
