"""Options that several commands share: those that set settings."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from edge.settings import BY_NAME, Argument, Loaded, load, parse_assignment

COMMON_SETTINGS = (
    "host",
    "port",
    "workers",
    "tls_cert",
    "tls_key",
    "data_dir",
    "log_level",
    "log_format",
)
ROLES = ("mixed", "teacher", "students")
"""The streams of a meeting."""


def add_settings(parser: argparse.ArgumentParser, names: Sequence[str] = COMMON_SETTINGS) -> None:
    """Add ``--config``, ``--set`` and an option for each setting of ``names``."""
    group = parser.add_argument_group("settings (see edgescribe config)")
    for name in names:
        setting = BY_NAME[name]
        group.add_argument(
            setting.flag,
            dest=f"setting_{name}",
            metavar=name.rpartition("_")[2].upper(),
            help=f"{setting.description} (default: {setting.shown(setting.default) or 'none'})",
        )
    group.add_argument(
        "--set",
        dest="assignments",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="set any setting; may be repeated",
    )
    group.add_argument(
        "--config", metavar="FILE", type=Path, help="TOML file (default: ./edgescribe.toml)"
    )


def load_settings(arguments: argparse.Namespace) -> Loaded:
    """The settings in force for a command; raises ``SettingError``."""
    given = dict(parse_assignment(text) for text in arguments.assignments)
    for key, text in vars(arguments).items():
        name = key.removeprefix("setting_")
        if name != key and text is not None:
            given[name] = Argument(BY_NAME[name].flag, text)
    return load(arguments=given, environment=os.environ, file=arguments.config)


def number(kind: type[int] | type[float], low: float, high: float) -> Callable[[str], float]:
    """A ``type`` for ``add_argument``: an int or a float from ``low`` to ``high``."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {what} from {low:g} to {high:g}")
        return value

    return parse
