"""Parses the command line, runs one command, turns its errors into one line and an exit status."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple, NoReturn

from edge.errors import EdgescribeError, NoRecognizer, SettingError

FAILED = 1
CANNOT = 2
INTERRUPTED = 130


class Command(NamedTuple):
    """What help says about a command; its module is ``edge.cli.<name>``."""

    name: str
    summary: str
    example: str


COMMANDS = (
    Command("serve", "run the gateway", "edgescribe serve --port 9000 --workers 2"),
    Command(
        "demo", "replay real speech through a gateway and judge what comes back", "edgescribe demo"
    ),
    Command(
        "replay",
        "send a recorded session to a gateway",
        "edgescribe replay media.jsonl ws://127.0.0.1:8080/transcribe --speed 2",
    ),
    Command(
        "monitor",
        "ask a gateway on an interval to transcribe a sample",
        "edgescribe monitor --monitor-url ws://gateway:8080/transcribe?sessionId=__SESSION_ID__",
    ),
    Command(
        "transcribe",
        "transcribe a WAV, Ogg Opus or WebM file",
        "edgescribe transcribe meeting.ogg --format srt",
    ),
    Command(
        "mix",
        "put a recorded session's speakers into one WAV file",
        "edgescribe mix media.jsonl meeting.wav",
    ),
    Command(
        "record",
        "stream a WAV file to a meeting as a recorder's desktop client does",
        "edgescribe record interview.wav http://127.0.0.1:8080 --role teacher --session-id m1",
    ),
    Command(
        "smoke",
        "try a running gateway's meetings: ingest or asr",
        "edgescribe smoke ingest --base-http http://127.0.0.1:8080 --base-ws ws://127.0.0.1:8080",
    ),
    Command(
        "dispatch",
        "show what waits for the dispatcher, or what was given up",
        "edgescribe dispatch dead-letters --redrive",
    ),
    Command(
        "dispatcher",
        "take finals from a gateway's queue and hand them to a sink",
        "edgescribe dispatcher --source redis --sink jsonl --path finals.jsonl",
    ),
    Command(
        "keys",
        "make, list and take back keys of a gateway",
        "edgescribe keys add bridge --scopes ingest",
    ),
    Command(
        "services",
        "list, register, replace or remove services of the router",
        "edgescribe services replace db http://10.0.0.7:9000 --tag blue",
    ),
    Command(
        "config",
        "show every setting, its value and where that came from",
        "PORT=9000 edgescribe config --format json",
    ),
    Command("doctor", "say what is missing here and how to mend it", "edgescribe doctor"),
    Command(
        "probe",
        "ask a running gateway whether it is alive or ready",
        "edgescribe probe ready http://127.0.0.1:8080",
    ),
)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(CANNOT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    words = sys.argv[1:] if argv is None else argv
    if "serve" in words:
        # A stop that comes before there is anything to stop is kept for the launcher.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    arguments = _parser(words).parse_args(words)
    try:
        status: int = import_module(f"edge.cli.{arguments.command}").run(arguments)
        sys.stdout.flush()
        return status
    except (SettingError, NoRecognizer) as error:
        return _say(error, CANNOT, arguments.debug)
    except EdgescribeError as error:
        return _say(error, FAILED, arguments.debug)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if arguments.debug:
            raise
        kind = type(error).__name__
        return _say(f"unexpected {kind}: {error} (--debug shows where)", FAILED, False)


def _parser(words: Sequence[str]) -> Parser:
    from edge.version import VERSION

    parser = Parser(
        prog="edgescribe",
        description="Self-hosted realtime transcription gateway for media servers.",
        epilog="example: edgescribe serve --port 9000",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"edgescribe {VERSION}")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in words if not word.startswith("-")), None)
    for command in COMMANDS:
        subparser = commands.add_parser(
            command.name,
            help=command.summary,
            description=command.summary[0].upper() + command.summary[1:] + ".",
            epilog=f"example: {command.example}",
            allow_abbrev=False,
        )
        subparser.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
        if command.name == chosen:
            import_module(f"edge.cli.{command.name}").add_arguments(subparser)
    return parser


def _say(error: object, status: int, debug: bool) -> int:
    if debug and isinstance(error, BaseException):
        raise error
    line = " ".join(str(error).split("\n")).strip()
    print(f"edgescribe: {line}", file=sys.stderr)
    return status
