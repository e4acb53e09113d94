"""``edgescribe demo``: real speech through a gateway started for it, and a verdict."""

from __future__ import annotations

import argparse
import asyncio
import sys

from edge.cli.arguments import number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``demo``; without any it is the demo of the README."""
    parser.add_argument(
        "--loss",
        type=number(float, 0, 50),
        default=2.0,
        metavar="PERCENT",
        help="packets that never arrive (default 2); 0 also keeps the others in order",
    )
    parser.add_argument(
        "--speakers",
        type=number(int, 1, 64),
        default=2,
        metavar="N",
        help="participants (default 2); with more, all speak to the end",
    )
    parser.add_argument(
        "--rounds",
        type=number(int, 1, 64),
        default=1,
        metavar="N",
        help="times the recordings are played (default 1)",
    )
    parser.add_argument(
        "--workers",
        type=number(int, 1, 64),
        default=2,
        metavar="N",
        help="of the gateway (default 2)",
    )


def run(args: argparse.Namespace) -> int:
    """Play and report; status 0 when the gateway did its job."""
    from edge.asr.embedded import require_packages

    require_packages()
    from edge.demo.bridge import Line
    from edge.demo.gateway import GatewayFailed
    from edge.demo.run import DemoPlan, run_demo
    from edge.demo.screen import Screen

    line = Line(loss=args.loss / 100) if args.loss else Line(loss=0, late=0)
    plan = DemoPlan(speakers=args.speakers, rounds=args.rounds, workers=args.workers, line=line)
    screen = Screen(sys.stdout)
    try:
        report = asyncio.run(run_demo(plan, screen))
    except GatewayFailed as error:
        print(error.log, file=sys.stderr)
        raise
    finally:
        screen.settle()
    screen.line()
    screen.heading("summary")
    for text in report.lines():
        screen.line(text)
    for problem in report.problems:
        screen.line(f"FAILED: {problem}")
    if not report.problems:
        screen.heading("PASSED")
    return 1 if report.problems else 0
