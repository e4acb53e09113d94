"""``edgescribe transcribe``: a recording to text, through a gateway or one it starts itself."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.demo.recording import PacketSource
    from edge.demo.transcriber import Segment, Transcript


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``transcribe``."""
    parser.add_argument(
        "file",
        type=Path,
        help="WAV file (16-bit PCM, any rate, any channels), Ogg Opus file or WebM file with Opus",
    )
    parser.add_argument(
        "url",
        nargs="?",
        help="base address of a gateway, or its whole /transcribe URL;"
        " without it a gateway with the embedded recognizer is started for the file",
    )
    parser.add_argument(
        "--format",
        choices=("txt", "json", "srt", "vtt"),
        default="txt",
        help="a line of text for each utterance, one JSON object, or subtitles (default txt)",
    )


def run(args: argparse.Namespace) -> int:
    """Transcribe and print; status 0."""
    from edge.asr.embedded import require_packages
    from edge.demo.recording import read_recording

    if args.url is None:
        require_packages()
    recording = read_recording(args.file)
    transcript = asyncio.run(_transcribe(recording, args.url, args.format == "txt"))
    if args.format != "txt":
        print(_formatted(transcript, args.format), end="", flush=True)
    return 0


def _formatted(transcript: Transcript, kind: str) -> str:
    import msgspec

    from edge.demo.subtitles import srt, vtt

    if kind == "json":
        return msgspec.json.format(msgspec.json.encode(transcript), indent=2).decode() + "\n"
    return (srt if kind == "srt" else vtt)(transcript.segments)


async def _transcribe(
    recording: PacketSource, address: str | None, print_lines: bool
) -> Transcript:
    from edge.demo.gateway import GatewayFailed, running
    from edge.demo.transcriber import transcribe

    note = _Note()

    def show(segment: Segment) -> None:
        if print_lines:
            note.clear()
            print(segment.text, flush=True)

    def progress(at_s: float) -> None:
        note.show(f"{at_s:.0f} of {recording.duration_s:.0f} s sent")

    try:
        if address is not None:
            return await transcribe(recording, address, on_segment=show, on_progress=progress)
        note.show("starting a gateway")
        own = ("--set", "providers_priority=embedded")
        async with running(workers=1, arguments=own) as gateway:
            return await transcribe(
                recording,
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
