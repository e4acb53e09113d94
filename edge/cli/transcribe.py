"""``edgescribe transcribe``: a WAV file to text, through a gateway or one it starts itself."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.demo.speech import Speech
    from edge.demo.transcriber import Segment, Transcript


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``transcribe``."""
    parser.add_argument("file", type=Path, help="WAV file, 16-bit PCM, any rate, any channels")
    parser.add_argument(
        "url",
        nargs="?",
        help="base address of a gateway, or its whole /transcribe URL;"
        " without it a gateway with the embedded recognizer is started for the file",
    )
    parser.add_argument(
        "--format",
        choices=("txt", "json"),
        default="txt",
        help="a line of text for each utterance, or one JSON object (default txt)",
    )


def run(args: argparse.Namespace) -> int:
    """Transcribe and print; status 0."""
    import msgspec

    from edge.asr.embedded import require_packages
    from edge.demo.speech import read_wav

    if args.url is None:
        require_packages()
    transcript = asyncio.run(_transcribe(read_wav(args.file), args.url, args.format == "txt"))
    if args.format == "json":
        encoded = msgspec.json.encode(transcript)
        print(msgspec.json.format(encoded, indent=2).decode(), flush=True)
    return 0


async def _transcribe(speech: Speech, address: str | None, print_lines: bool) -> Transcript:
    from edge.demo.gateway import GatewayFailed, running
    from edge.demo.transcriber import transcribe

    note = _Note()

    def show(segment: Segment) -> None:
        if print_lines:
            note.clear()
            print(segment.text, flush=True)

    def progress(at_s: float) -> None:
        note.show(f"{at_s:.0f} of {speech.duration_s:.0f} s sent")

    try:
        if address is not None:
            return await transcribe(speech, address, on_segment=show, on_progress=progress)
        note.show("starting a gateway")
        own = ("--set", "providers_priority=embedded")
        async with running(workers=1, arguments=own) as gateway:
            return await transcribe(
                speech,
                gateway.address,
                defaults={"provider": "embedded"},
                on_segment=show,
                on_progress=progress,
            )
    except GatewayFailed as error:
        note.clear()
        print(error.log, file=sys.stderr)
        raise
    finally:
        note.clear()


class _Note:
    """A line of progress on standard error, for terminals only."""

    def __init__(self) -> None:
        self._wanted = sys.stderr.isatty()

    def show(self, text: str) -> None:
        if self._wanted:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._wanted:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
