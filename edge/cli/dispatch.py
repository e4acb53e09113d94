"""``edgescribe dispatch``: what waits for the dispatcher, and what was given up.

It reads the session store of the settings, beside a running gateway or without one; with the local
queue it reads that, too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from dispatch.errors import Unreachable
from dispatch.local_queue import LocalQueue
from dispatch.local_tables import DeadLetter as QueueLetter
from edge.cli.arguments import add_settings, load_settings, number
from edge.compose import build_store
from edge.dispatching.ways import QUEUE_FILE, way
from edge.errors import EdgescribeError
from edge.session.store.interface import DeadLetter, SessionStore
from edge.settings import Settings

MOST_LISTED = 10_000
OUTBOX = "outbox"
QUEUE = "queue"


class DispatchFailed(EdgescribeError):
    """What was asked for cannot be read or changed."""


class Place(msgspec.Struct, frozen=True):
    """What waits in one place; the age is that of the oldest message."""

    where: str
    waiting: int
    oldest_age_s: float
    dead: int


class Status(msgspec.Struct, frozen=True):
    """The way that finals take (empty: none), and what is on it."""

    way: str
    places: list[Place]


class Given(msgspec.Struct, frozen=True):
    """A message that was given up; times in ms since 1970."""

    where: str
    id: str
    epoch: str
    attempts: int
    enqueued_ms: int
    died_ms: int
    reason: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to show."""
    parser.add_argument("action", choices=("status", "dead-letters"))
    parser.add_argument(
        "--redrive", action="store_true", help="put the dead letters that are listed back"
    )
    parser.add_argument(
        "--limit",
        type=number(int, 1, MOST_LISTED),
        default=100,
        metavar="N",
        help="of dead letters",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_settings(parser, names=("data_dir", "store"))


def run(arguments: argparse.Namespace) -> int:
    """Print it; 0 when all could be read."""
    settings = load_settings(arguments).settings
    try:
        return asyncio.run(_run(arguments, settings))
    except Unreachable as error:
        raise DispatchFailed(str(error)) from error


async def _run(arguments: argparse.Namespace, settings: Settings) -> int:
    path = settings.server.data_dir / QUEUE_FILE
    async with build_store(settings) as store:
        if arguments.action == "status":
            _show_status(await _status(settings, store, path), as_json=arguments.json)
            return 0
        letters = await store.dead_letters(arguments.limit)
        given = [_letter(OUTBOX, each) for each in letters]
        redriven = await store.redrive(letters) if arguments.redrive else 0
    if path.exists():
        async with LocalQueue(path) as queue:
            waiting = await queue.dead_letters(arguments.limit)
            given += [_letter(QUEUE, each) for each in waiting]
            redriven += await queue.redrive(waiting) if arguments.redrive else 0
    _show_letters(given, as_json=arguments.json)
    if arguments.redrive and not arguments.json:
        print(f"{redriven} put back")
    return 0


async def _status(settings: Settings, store: SessionStore, path: Path) -> Status:
    places = [
        Place(
            OUTBOX,
            await store.outbox_size(),
            _age_s(await store.oldest_ms()),
            len(await store.dead_letters(MOST_LISTED)),
        )
    ]
    if path.exists():
        async with LocalQueue(path) as queue:
            places.append(
                Place(
                    QUEUE,
                    await queue.outbox_size(),
                    _age_s(await queue.oldest_ms()),
                    len(await queue.dead_letters(MOST_LISTED)),
                )
            )
    return Status(way(settings.dispatch), places)


def _age_s(oldest_ms: int | None) -> float:
    return 0.0 if oldest_ms is None else max(0.0, round(time.time() - oldest_ms / 1000, 1))


def _letter(where: str, letter: DeadLetter | QueueLetter) -> Given:
    row = letter.row
    return Given(
        where=where,
        id=f"{row.session}:{row.offset}",
        epoch=row.epoch,
        attempts=row.attempt + 1,
        enqueued_ms=row.enqueued_ms,
        died_ms=letter.died_ms,
        reason=letter.reason,
    )


def _show_status(status: Status, *, as_json: bool) -> None:
    if as_json:
        _print_json(status)
        return
    print(f"way     {status.way or 'none: no final is dispatched'}")
    for place in status.places:
        age = f", the oldest for {place.oldest_age_s:g} s" if place.waiting else ""
        print(f"{place.where:<8}{place.waiting} wait{age}; {place.dead} dead letters")


def _show_letters(given: Sequence[Given], *, as_json: bool) -> None:
    if as_json:
        _print_json(list(given))
        return
    for each in given:
        died = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(each.died_ms / 1000))
        print(f"{died}  {each.where:<6}  {each.id}  after {each.attempts}: {each.reason}")
    print(f"{len(given)} dead letters")


def _print_json(value: Any) -> None:
    print(json.dumps(msgspec.to_builtins(value)))
