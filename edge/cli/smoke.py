"""``edgescribe smoke``: short trials of a running gateway's meetings."""

from __future__ import annotations

import argparse

from edge.cli.arguments import ROLES, number

BASE = "127.0.0.1:8080"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the trials and what each may be told."""
    trials = parser.add_subparsers(dest="trial", metavar="TRIAL", required=True)
    _add_ingest(
        trials.add_parser(
            "ingest",
            help="send tones to a meeting's socket and see that they are stored",
            description="Send tones to a meeting's socket and see that each chunk is stored once.",
            epilog="example: edgescribe smoke ingest --stream-role teacher --chunks 10",
            allow_abbrev=False,
        )
    )
    _add_asr(
        trials.add_parser(
            "asr",
            help="transcribe a meeting's stored audio and see that there is text",
            description="Transcribe windows of stored audio and see that there is text.",
            epilog="example: edgescribe smoke asr --session-id m1 --stream-role teacher",
            allow_abbrev=False,
        )
    )


def _add_ingest(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--base-http", metavar="URL", default=f"http://{BASE}", help="default %(default)s")
    add("--base-ws", metavar="URL", default=f"ws://{BASE}", help="default %(default)s")
    add("--session-id", metavar="NAME", help="default ws-smoke-<Unix time in ms>")
    add(
        "--chunks",
        metavar="N",
        type=number(int, 1, 100_000),
        default=3,
        help="how many seconds to send (default %(default)s)",
    )
    _add_role(parser)


def _add_asr(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--base-url", metavar="URL", default=f"http://{BASE}", help="default %(default)s")
    add("--session-id", metavar="NAME", required=True, help="a session that has audio")
    _add_role(parser)
    add("--view", choices=("raw", "merged"), default="raw", help="default %(default)s")
    add(
        "--min-utterances",
        metavar="N",
        type=number(int, 0, 1000),
        default=1,
        help="how many there must be (default %(default)s)",
    )
    add(
        "--max-windows",
        metavar="N",
        type=number(int, 0, 1_000_000),
        default=1,
        help="windows to transcribe, 0 for all (default %(default)s)",
    )
    add("--reset-first", action="store_true", help="forget what was heard before and begin anew")
    add("--allow-empty-text", action="store_true", help="pass though nothing was said")


def _add_role(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stream-role", choices=ROLES, default="mixed", help="default %(default)s")


def run(arguments: argparse.Namespace) -> int:
    """Try, and print one JSON object; status 0, 1 when something is not as it must be."""
    import msgspec

    passed = _ingest(arguments) if arguments.trial == "ingest" else _asr(arguments)
    print(msgspec.json.encode(passed).decode())
    return 0


def _ingest(args: argparse.Namespace) -> object:
    import asyncio
    import time

    from edge.demo.smoke import smoke_ingest

    session_id = args.session_id or f"ws-smoke-{time.time_ns() // 1_000_000}"
    return asyncio.run(
        smoke_ingest(
            args.base_http, args.base_ws, session_id, chunks=args.chunks, role=args.stream_role
        )
    )


def _asr(args: argparse.Namespace) -> object:
    from edge.demo.rest import Meeting
    from edge.demo.smoke import smoke_recognition

    return smoke_recognition(
        Meeting(args.base_url, args.session_id),
        args.session_id,
        args.stream_role,
        view=args.view,
        min_utterances=args.min_utterances,
        max_windows=args.max_windows,
        reset_first=args.reset_first,
        allow_empty_text=args.allow_empty_text,
    )
