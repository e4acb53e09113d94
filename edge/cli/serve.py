"""``edgescribe serve``: run the gateway until a signal stops it."""

from __future__ import annotations

import argparse

from edge.cli.arguments import add_settings, load_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All settings that are often given by hand have an option."""
    add_settings(parser)
    parser.add_argument(
        "--insecure",
        dest="setting_insecure",
        action="store_const",
        const="true",
        help="serve other machines without authentication",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve; 0 after a clean stop."""
    from edge import logs
    from edge.auth.exposure import check_exposure
    from edge.server import launcher

    loaded = load_settings(arguments)
    server = loaded.settings.server
    check_exposure(server.host, loaded.settings.auth, server.data_dir)
    logs.configure(server.log_level, server.log_format)
    for warning in loaded.warnings:
        logs.get_logger("edge.settings").warning(warning)
    launcher.serve(loaded.settings, announce=lambda line: print(line, flush=True))
    return 0
