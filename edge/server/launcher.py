"""The main process: binds the port, starts the workers, tells when they are ready, stops them.

Comes in: settings. Goes out: a running gateway until a signal or a failure ends it. ``edge.cli``
may call ``serve``, once per process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.managers import SyncManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.asr.embedded import Care, EmbeddedRecognizer, run_caretaker
from edge.asr.registry import Survey, survey
from edge.errors import SettingError
from edge.server.board import WorkerBoard
from edge.server.boot import Boot
from edge.server.listener import BACKLOG, address_of, listen
from edge.server.process import (
    STOP_SIGNALS,
    ignore_stop_signals,
    run_beside,
    settle_helper,
    stop_signals_held,
)
from edge.server.tls import Credentials, credentials
from edge.settings import Settings
from edge.version import VERSION

if TYPE_CHECKING:
    from sanic import Sanic

METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
STOP_MARGIN_S = 6.0
"""What a worker may take for closing handshakes and its own end, past the drain's deadline."""
FAREWELL_MARGIN_S = 5.0
"""What the inference process serves workers past the drain's deadline."""


def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Run the gateway until SIGTERM or SIGINT; ``announce`` gets the lines of the start.

    Raises ``SettingError`` for settings that cannot work here, ``NoRecognizer`` when nothing can
    turn audio to text, ``ListenFailed`` when the port is taken, and ``WorkerFailed`` when workers
    did not start, all ended, or had to be killed.
    """
    early_stops: list[int] = []
    for number in STOP_SIGNALS:
        signal.signal(number, lambda number, frame: early_stops.append(number))
    # The resource tracker undoes a hold on signals when it starts, so it starts first.
    resource_tracker.ensure_running()
    with ExitStack() as stack:
        stack.enter_context(stop_signals_held())
        stack.callback(ignore_stop_signals)
        if early_stops:
            return
        tls = credentials(settings.server)
        data_dir = _data_directory(settings.server.data_dir)
        listener = stack.enter_context(listen(settings.server.host, settings.server.port))
        run_dir = Path(stack.enter_context(_run_directory()))
        _share_metrics(run_dir)
        _run(settings, run_dir, data_dir, listener, tls, announce)


def _run(
    settings: Settings,
    run_dir: Path,
    data_dir: Path,
    listener: socket.socket,
    tls: Credentials | None,
    announce: Callable[[str], None],
) -> None:
    # These import prometheus_client, which looks for its directory once.
    from sanic import Sanic
    from sanic.mixins import startup
    from sanic.worker.loader import AppLoader

    from edge.compose import recognizer_config
    from edge.server.app import create_app, protocol_of
    from edge.server.manager import Plan, Watch

    workers = settings.server.worker_count
    boot = Boot(
        settings=settings,
        parent=os.getpid(),
        run_dir=str(run_dir),
        embedded_socket=str(run_dir / "inference.sock"),
    )
    recognizers = survey(recognizer_config(settings, boot.embedded_socket))
    board = WorkerBoard.create(workers)

    plan = Plan(
        board=board,
        stop_deadline_s=settings.server.drain_deadline_s + STOP_MARGIN_S,
        hang_deadline_s=settings.server.hang_deadline_s,
        on_ready=lambda: _tell(
            announce, address_of(listener), tls is not None, workers, recognizers, data_dir
        ),
        on_exit=_forget_metrics,
    )
    Watch.plan = plan
    vars(startup).update(WorkerManager=Watch, Manager=_state_manager)

    loader = AppLoader(factory=partial(create_app, boot))
    app = loader.load()
    app.shared_ctx.board_rows = board.rows
    app.shared_ctx.board_started = board.started
    app.prepare(
        sock=listener,
        ssl=tls.for_sanic() if tls else None,
        workers=workers,
        protocol=protocol_of(settings.routing),
        backlog=BACKLOG,
        access_log=False,
        motd=False,
    )
    if EmbeddedRecognizer.name in recognizers.available:
        care = Care(
            at_once=EmbeddedRecognizer.name in recognizers.order,
            hang_deadline_s=settings.server.hang_deadline_s,
            farewell_s=settings.server.drain_deadline_s + FAREWELL_MARGIN_S,
        )
        app.register_listener(partial(_start_inference, boot, care), "main_process_ready")
    Sanic.serve(primary=app, app_loader=loader)
    if plan.failure:
        raise plan.failure


def _tell(
    announce: Callable[[str], None],
    address: str,
    secure: bool,
    workers: int,
    recognizers: Survey,
    data_dir: Path,
) -> None:
    plural = "" if workers == 1 else "s"
    s = "s" if secure else ""
    announce(f"edgescribe {VERSION} listens on http{s}://{address} ({workers} worker{plural})")
    announce(f"media servers connect to ws{s}://{address}/transcribe")
    available = ", ".join(
        f"{name} (default)" if name == recognizers.default else name
        for name in recognizers.available
    )
    announce(f"recognizers: {available}")
    announce(f"data directory: {data_dir}")


async def _start_inference(boot: Boot, care: Care, app: Sanic[Any, Any]) -> None:
    """One inference process for all workers, kept alive by a process of its own."""
    server = boot.settings.server
    arguments = {
        "settings": boot.settings.recognizer["embedded"],
        "socket_path": boot.embedded_socket,
        "log_level": server.log_level,
        "log_format": server.log_format,
        "care": care,
    }
    app.manager.manage(
        "Inference", run_beside, {"target": run_caretaker, "arguments": arguments}, transient=False
    )


def _data_directory(path: Path) -> Path:
    where = path.absolute()
    try:
        where.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=where):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise SettingError("data_dir", str(where), f"it must be writable ({reason})") from error
    return where


def _run_directory() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="edgescribe-", ignore_cleanup_errors=True)


def _share_metrics(run_dir: Path) -> None:
    """Give this process and its workers an empty directory for their metrics."""
    if "prometheus_client" in sys.modules:
        raise RuntimeError("prometheus_client was imported before its directory was known")
    directory = run_dir / "metrics"
    directory.mkdir()
    os.environ[METRICS_VARIABLE] = str(directory)
    os.environ["SANIC_IGNORE_PRODUCTION_WARNING"] = "true"


def _forget_metrics(pid: int) -> None:
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid)


def _state_manager() -> SyncManager:
    """The process that holds Sanic's table of worker states, deaf to signals but no orphan."""
    manager = SyncManager(ctx=multiprocessing.get_context("spawn"))
    manager.start(settle_helper, (os.getpid(),))
    return manager
