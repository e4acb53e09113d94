"""``edgescribe mix``: a dump's speakers in one WAV file, each where they spoke."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.cli.mixer import Mixed

RATES_HZ = (8000, 12000, 16000, 24000, 48000)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``mix``."""
    parser.add_argument("dump", type=Path, help="media.jsonl as DUMP_WEBSOCKET_MESSAGES writes it")
    parser.add_argument("out", type=Path, help="WAV file to write, mono, 16-bit")
    parser.add_argument(
        "--rate",
        type=int,
        choices=RATES_HZ,
        default=24000,
        metavar="HZ",
        help=f"its sample rate: {', '.join(map(str, RATES_HZ))} (default %(default)s)",
    )
    parser.add_argument(
        "--encoding",
        choices=("opus", "ogg-opus", "webm"),
        default="opus",
        help="the encoding= of the recorded connection's URL (default %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Mix; status 0."""
    from edge.audio.mixdown import Mixdown
    from edge.cli.mixer import Mixer, first_time
    from edge.errors import EdgescribeError

    origin_ms = first_time(args.dump) / 48
    try:
        with tempfile.TemporaryFile(dir=args.out.parent) as sums:
            mixdown = Mixdown(sums, args.rate, origin_ms)
            mixed = Mixer(mixdown, args.rate, args.encoding).mix(args.dump)
            mixdown.write_wav(args.out)
    except OSError as error:
        raise EdgescribeError(f"{args.out} cannot be written: {error.strerror or error}") from None
    _report(args.out, mixed, mixdown.left_out / args.rate)
    return 0


def _report(out: Path, mixed: Mixed, left_out_s: float) -> None:
    minutes, seconds = divmod(mixed.duration_s, 60)
    print(
        f"{out}: {minutes:.0f} min {seconds:.1f} s, {mixed.tags} tags, {mixed.packets} packets,"
        f" {mixed.lost} lost ones bridged, {mixed.corrupt} damaged"
    )
    for tag, reason in mixed.refused.items():
        print(f"edgescribe: {tag} is left out from there on: {reason}", file=sys.stderr)
    if mixed.bad_events:
        print(f"edgescribe: {mixed.bad_events} messages could not be read", file=sys.stderr)
    if left_out_s >= 0.1:
        print(
            f"edgescribe: {left_out_s:.1f} s of audio are left out: their times lie before the"
            " first packet, or more than 24 hours after it",
            file=sys.stderr,
        )
