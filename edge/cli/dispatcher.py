"""``edgescribe dispatcher``: takes finals from the queue of a gateway and hands them to a sink."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.cli.arguments import add_settings, load_settings, number
from edge.errors import EdgescribeError, MissingDependency, SettingError

if TYPE_CHECKING:
    from dispatch.consumer import Consumer
    from dispatch.interface import Transport
    from dispatch.sources.interface import Source
    from edge.settings import Settings

SOURCES = ("sqs", "redis", "local")
SETTINGS = (
    "data_dir",
    "dispatch_redis_url",
    "dispatch_sqs_url",
    "dispatch_sqs_region",
    "dispatch_sqs_endpoint",
    "dispatch_max_retries",
    "dispatch_deadline_s",
    "log_level",
    "log_format",
)
MOST_LISTED = 10_000
STOP_WITHIN_S = 10.0
LOOPBACK = ("127.0.0.1", "[::1]", "localhost")


class DispatcherFailed(EdgescribeError):
    """The queue cannot be used, or the sink is gone for good."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where from, where to, and how; addresses and keys are settings."""
    parser.add_argument(
        "--source", choices=SOURCES, help="the queue (default: the one that the gateway fills)"
    )
    parser.add_argument(
        "--sink",
        default="stdout",
        metavar="SINK",
        help="stdout, jsonl, webhook, or module:attribute of a TranscriptionDispatcher",
    )
    parser.add_argument(
        "--batch",
        type=number(int, 1, 1000),
        default=10,
        metavar="N",
        help="messages that are taken at a time (default 10)",
    )
    parser.add_argument(
        "--batch-wait",
        type=number(float, 0, 60),
        default=5.0,
        metavar="SECONDS",
        help="how long to wait for a batch to become full (default 5)",
    )
    parser.add_argument(
        "--takeover",
        type=number(float, 0.5, 300),
        default=5.0,
        metavar="SECONDS",
        help="redis: how soon others read on for a consumer that died (default 5)",
    )
    files = parser.add_argument_group("jsonl")
    files.add_argument("--path", type=Path, metavar="FILE", help="file to append to")
    files.add_argument(
        "--max-bytes",
        type=number(int, 1000, 1 << 50),
        default=100 << 20,
        metavar="BYTES",
        help="start a new file beyond (default 100 MiB)",
    )
    files.add_argument(
        "--keep",
        type=number(int, 1, 10_000),
        default=10,
        metavar="N",
        help="older files that are kept (default 10)",
    )
    files.add_argument("--fsync", action="store_true", help="acknowledge what is on the disk only")
    parser.add_argument(
        "--url", metavar="URL", help="of the webhook (default: the setting dispatch_http_url)"
    )
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        help="also take POST /dispatch and WebSockets; with dispatch_secret only signed ones",
    )
    letters = parser.add_argument_group("instead of taking messages")
    letters.add_argument("--dead-letters", action="store_true", help="list what was given up")
    letters.add_argument("--redrive", action="store_true", help="list it and put it back")
    add_settings(parser, names=SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Deliver until SIGTERM; 0 then."""
    import uvloop

    from dispatch.errors import DispatchError
    from edge import logs

    loaded = load_settings(arguments)
    settings = loaded.settings
    logs.configure(settings.server.log_level, settings.server.log_format)
    for warning in loaded.warnings:
        logs.get_logger("edge.settings").warning(warning)
    if arguments.dead_letters or arguments.redrive:
        work = _letters(_source(arguments, settings), is_redriven=arguments.redrive)
    else:
        work = _deliver(arguments, settings)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work)
    except DispatchError as error:
        raise DispatcherFailed(str(error)) from error


def _source(arguments: argparse.Namespace, settings: Settings) -> Source[Any]:
    from edge.dispatching.ways import QUEUE_FILE, way

    chosen = settings.dispatch
    kind = arguments.source or way(chosen)
    if kind == "local":
        from dispatch.local_queue import LocalQueue

        return LocalQueue(settings.server.data_dir / QUEUE_FILE)
    if kind == "redis":
        try:
            from dispatch.sources.redis import RedisSource
        except ImportError as error:
            raise MissingDependency("redis", "redis") from error
        url = _needed(chosen.dispatch_redis_url, "dispatch_redis_url", "redis://host:6379/0")
        try:
            return RedisSource(
                url, lease_s=arguments.takeover, deadline_s=chosen.dispatch_deadline_s
            )
        except ValueError as error:
            raise SettingError("dispatch_redis_url", "***", str(error)) from error
    if kind == "sqs":
        from dispatch.sources.sqs import SqsSource

        return SqsSource(
            _needed(chosen.dispatch_sqs_url, "dispatch_sqs_url", "the URL of a queue"),
            chosen.dispatch_sqs_region,
            chosen.dispatch_sqs_endpoint or None,
            deadline_s=chosen.dispatch_deadline_s,
        )
    raise SettingError("--source", "", f"the gateway fills no queue; say one of {SOURCES}")


def _sink(arguments: argparse.Namespace, settings: Settings) -> Transport:
    deadline_s = settings.dispatch.dispatch_deadline_s
    if arguments.sink == "stdout":
        from dispatch.sinks.stdout import StdoutSink

        return StdoutSink(sys.stdout.fileno(), deadline_s)
    if arguments.sink == "jsonl":
        from dispatch.sinks.jsonl import JsonlSink

        return JsonlSink(
            Path(_needed(arguments.path, "--path", "the file to write")),
            max_bytes=arguments.max_bytes,
            keep=arguments.keep,
            is_synced=arguments.fsync,
            deadline_s=deadline_s,
        )
    if arguments.sink == "webhook":
        from dispatch.transports.http import HttpTransport
        from edge.dispatching.ways import headers

        url = arguments.url or settings.dispatch.dispatch_http_url
        try:
            return HttpTransport(
                _needed(url, "--url", "where to post to"),
                headers=headers(settings.dispatch),
                secret=settings.dispatch.dispatch_secret.encode(),
                deadline_s=deadline_s,
            )
        except ValueError as error:
            raise SettingError("--url", "***", str(error)) from None
    from dispatch.transports.binding import BindingTransport

    if ":" not in arguments.sink:
        raise SettingError("--sink", arguments.sink, "stdout, jsonl, webhook or module:attribute")
    # A module beside which the command is given is found, as with ``python -m``.
    sys.path.insert(0, os.getcwd())
    try:
        return BindingTransport(arguments.sink, deadline_s)
    except (ValueError, ImportError, AttributeError) as error:
        raise SettingError("--sink", arguments.sink, str(error)) from error


def _needed(value: Any, name: str, allowed: str) -> Any:
    if not value:
        raise SettingError(name, "", f"it is needed here: {allowed}")
    return value


async def _deliver(arguments: argparse.Namespace, settings: Settings) -> int:
    from edge.logs import get_logger

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stopping.set)
    async with AsyncExitStack() as stack:
        sink = await stack.enter_async_context(_sink(arguments, settings))
        if arguments.listen:
            await _listen(arguments.listen, sink, settings, stack)
        works: list[asyncio.Task[Any]] = [loop.create_task(stopping.wait())]
        gone = getattr(sink, "gone", None)
        if gone is not None:
            works.append(loop.create_task(gone.wait()))
        consumer = None
        if arguments.source or not arguments.listen:
            source = await stack.enter_async_context(_source(arguments, settings))
            consumer = _consumer(arguments, settings, source, sink)
            get_logger("dispatch").info("delivering", sink=arguments.sink)
            works.append(loop.create_task(consumer.run()))
        try:
            await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
            if consumer is not None:
                consumer.stop()
                await works[-1]
                _tell(consumer)
        finally:
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)
        if gone is not None and gone.is_set():
            raise DispatcherFailed("nobody reads standard output any more")
    return 0


def _consumer(
    arguments: argparse.Namespace, settings: Settings, source: Source[Any], sink: Transport
) -> Consumer[Any]:
    from dispatch.consumer import Consumer, ConsumerPlan
    from dispatch.dispatcher import Retrying

    plan = ConsumerPlan(
        batch=arguments.batch,
        batch_wait_s=arguments.batch_wait,
        retrying=Retrying(max_retries=settings.dispatch.dispatch_max_retries),
        lease_s=3 * settings.dispatch.dispatch_deadline_s,
        stop_within_s=STOP_WITHIN_S,
    )
    return Consumer(source, sink, plan)


async def _listen(address: str, sink: Transport, settings: Settings, stack: AsyncExitStack) -> None:
    from dispatch.reception.server import Reception
    from edge.logs import get_logger

    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise SettingError("--listen", address, "write HOST:PORT; port 0 takes a free one")
    secret = settings.dispatch.dispatch_secret.encode()
    if not secret and host not in LOOPBACK:
        get_logger("dispatch").warning(
            "who reaches this address can bring messages: set dispatch_secret", address=address
        )
    reception = Reception(sink, secret=secret)
    try:
        serving = reception.serving(host.strip("[]"), int(port), stop_within_s=STOP_WITHIN_S)
        taken = await stack.enter_async_context(serving)
    except OSError as error:
        raise DispatcherFailed(f"{address} cannot be listened on: {error.strerror}") from error
    get_logger("dispatch").info("listening", address=f"http://{host}:{taken}")


def _tell(consumer: Consumer[Any]) -> None:
    from edge.logs import get_logger

    counts, intake = consumer.counts, consumer.intake_counts
    get_logger("dispatch").info(
        "stopped",
        sent=counts.sent,
        retried=counts.retried,
        dead=counts.dead + intake.garbage,
        duplicates=intake.duplicates,
    )


async def _letters(source: Source[Any], *, is_redriven: bool) -> int:
    async with source:
        letters: Sequence[Any] = await source.dead_letters(MOST_LISTED)
        for each in letters:
            died = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(each.died_ms / 1000))
            print(f"{died}  {each.row.session}:{each.row.offset}  {each.reason}")
        print(f"{len(letters)} dead letters")
        if is_redriven:
            print(f"{await source.redrive(letters)} put back")
    return 0
