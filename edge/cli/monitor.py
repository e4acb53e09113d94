"""``edgescribe monitor``: replay a sample to a gateway on an interval and serve what came of it."""

from __future__ import annotations

import argparse
import asyncio
import signal
from typing import TYPE_CHECKING

from edge.cli.arguments import add_settings, load_settings
from edge.errors import SettingError

if TYPE_CHECKING:
    from edge.demo.monitor import Monitor

SETTINGS = (
    "monitor_url",
    "monitor_interval_s",
    "monitor_min_finals",
    "monitor_retry_delay_s",
    "monitor_sample",
    "monitor_speed",
    "monitor_port",
    "host",
    "log_level",
    "log_format",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``monitor``; most are settings."""
    parser.add_argument(
        "--once", action="store_true", help="check once and end, with status 1 when it failed"
    )
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Check until SIGTERM; 0 then, and after a single check that passed."""
    from edge import logs
    from edge.demo.monitor import Monitor, read_sample

    loaded = load_settings(arguments)
    server, settings = loaded.settings.server, loaded.settings.monitor
    logs.configure(server.log_level, server.log_format)
    for warning in loaded.warnings:
        logs.get_logger("edge.settings").warning(warning)
    if not settings.monitor_url:
        raise SettingError("MONITOR_URL", "", "the address of a gateway, ws://HOST:PORT/transcribe")
    monitor = Monitor(settings, read_sample(settings.monitor_sample))
    if arguments.once:
        return 0 if asyncio.run(monitor.check()) else 1
    asyncio.run(_run(monitor, server.host))
    return 0


async def _run(monitor: Monitor, host: str) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with monitor.serving(host) as port:
        print(f"monitor listening on http://{host}:{port}", flush=True)
        checking = asyncio.create_task(monitor.run())
        stopped = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait((checking, stopped), return_when=asyncio.FIRST_COMPLETED)
            if checking.done():
                checking.result()
        finally:
            for task in (checking, stopped):
                task.cancel()
            await asyncio.gather(checking, stopped, return_exceptions=True)
