"""``edgescribe record``: a WAV file to a meeting, as a recorder's desktop client streams it."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from edge.cli.arguments import ROLES, number

if TYPE_CHECKING:
    from edge.demo.capture import Captured
    from edge.demo.recorder import ServerFrame
    from edge.demo.speech import Speech


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``record``."""
    parser.add_argument("file", type=Path, help="WAV file (16-bit PCM, any rate, any channels)")
    parser.add_argument(
        "url", help="base address of a gateway, or its whole /v1/audio/ws/SESSION/ROLE URL"
    )
    parser.add_argument(
        "--role", choices=ROLES, help="whose voice it is (default: that of the URL, else mixed)"
    )
    parser.add_argument(
        "--session-id",
        metavar="NAME",
        help="the meeting (default: that of the URL, else a new one)",
    )
    parser.add_argument(
        "--speed",
        type=number(float, 0, 1000),
        default=1.0,
        metavar="N",
        help="times as fast as spoken; 0 sends without delay (default 1)",
    )
    parser.add_argument(
        "--transcripts", action="store_true", help="print what is heard, where the gateway tells it"
    )


def run(args: argparse.Namespace) -> int:
    """Stream to the end; status 0 once every chunk is stored."""
    from edge.demo.speech import read_wav

    asyncio.run(_record(args, read_wav(args.file)))
    return 0


async def _record(args: argparse.Namespace, speech: Speech) -> Captured:
    import sys

    from edge.demo.capture import stream
    from edge.demo.recorder import connect
    from edge.demo.screen import Screen

    screen = Screen(sys.stdout)

    def show(frame: ServerFrame) -> None:
        if frame.type == "transcript" and frame.text:
            at_s = (frame.start_ms or 0) / 1000
            write = screen.final if frame.is_final else screen.interim
            write(at_s, recorder.role, frame.text)

    try:
        async with connect(
            args.url,
            session_id=args.session_id,
            role=args.role,
            query={"transcripts": "true"} if args.transcripts else None,
            on_frame=show,
        ) as recorder:
            screen.line(f"session {recorder.session_id}, {recorder.role}")
            done = await stream(
                recorder,
                speech,
                speed=args.speed,
                on_progress=lambda at_s: screen.played(at_s, speech.duration_s),
            )
    finally:
        screen.settle()
    screen.line(
        f"{done.audio_s:.1f} s stored as chunks {done.first_seq} to {done.last_seq},"
        f" the slowest ack after {done.slowest_ack_s * 1000:.0f} ms"
    )
    if done.missing_count:
        screen.line(f"{done.missing_count} chunks of earlier clients are missing")
    return done
