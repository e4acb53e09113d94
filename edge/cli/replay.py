"""``edgescribe replay``: a dump's messages to a gateway again, its transcripts on the screen."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge.cli.arguments import number
from edge.errors import EdgescribeError

if TYPE_CHECKING:
    from edge.demo.client import ServerMessage
    from edge.demo.replay import Replayed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``replay``."""
    parser.add_argument("dump", type=Path, help="media.jsonl as DUMP_WEBSOCKET_MESSAGES writes it")
    parser.add_argument("url", help="base address of a gateway, or its whole /transcribe URL")
    parser.add_argument(
        "--speed",
        type=number(float, 0, 1000),
        default=1.0,
        metavar="N",
        help="times as fast as recorded; 0 sends without delay (default 1)",
    )
    parser.add_argument(
        "--assert-min-finals",
        type=int,
        metavar="N",
        help="end with INTEGRATION_RESULT: PASS, or FAIL and status 1 when fewer finals came",
    )
    parser.add_argument(
        "--connect-timeout",
        type=number(float, 0.1, 600),
        default=15.0,
        metavar="S",
        help="seconds to wait for the connection (default %(default)g)",
    )
    parser.add_argument(
        "--headers",
        type=_headers,
        default=os.environ.get("REPLAY_HEADERS"),
        metavar="JSON",
        help="extra request headers as a JSON object (environment: REPLAY_HEADERS)",
    )


def run(args: argparse.Namespace) -> int:
    """Replay; status 0, or 1 when the asserted finals did not come."""
    wanted: int | None = args.assert_min_finals
    try:
        done = asyncio.run(_replay(args))
    except EdgescribeError as error:
        if wanted is None:
            raise
        print(f"edgescribe: {error}", file=sys.stderr)
        passed = False
    else:
        passed = wanted is None or done.finals >= wanted
    if wanted is not None:
        print(f"INTEGRATION_RESULT: {'PASS' if passed else 'FAIL'}")
    return 0 if passed else 1


async def _replay(args: argparse.Namespace) -> Replayed:
    from edge.demo.replay import replay
    from edge.demo.screen import Screen

    screen = Screen(sys.stdout)

    def show(at_s: float, message: ServerMessage) -> None:
        if message.event == "error":
            screen.line(f"{at_s:6.2f} s  {message.tag}  error {message.code}: {message.message}")
        elif message.is_result and message.is_interim:
            screen.interim(at_s, message.speaker, message.text)
        elif message.is_result:
            screen.final(at_s, message.speaker, message.text)

    try:
        done = await replay(
            args.dump,
            args.url,
            show,
            speed=args.speed,
            headers=args.headers,
            connect_timeout_s=args.connect_timeout,
        )
    finally:
        screen.settle()
    screen.line(f"{done.sent} messages sent, {done.finals} finals, {done.interims} interims")
    if done.cut_off:
        screen.line(f"the gateway closed the connection: {done.cut_off}")
    return done


def _headers(text: str) -> dict[str, str]:
    try:
        return msgspec.json.decode(text, type=dict[str, str])
    except msgspec.DecodeError as error:
        raise argparse.ArgumentTypeError(f"not a JSON object of texts: {error}") from None
