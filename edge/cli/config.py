"""``edgescribe config``: every setting with its value and source, secrets hidden."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence

import msgspec

from edge.cli.arguments import add_settings, load_settings
from edge.settings import TABLE, Loaded, Setting

REFERENCE_HEAD = """\
# Configuration

A setting takes its value from the first of these that has it: the command line, the environment,
the file, the default. `edgescribe config` shows the values in force and where each came from.

- **Command line**: `--port 9000` for the common ones, `--set NAME=VALUE` for any.
- **Environment**: the names below, the first that is set and not empty.
- **File**: `edgescribe.toml` in the working directory, or `--config FILE`, or `EDGESCRIBE_CONFIG`.
  One table per section: `[server]`, then `port = 9000`. An unknown table or name stops the start.

A value that cannot be used stops the start with its name, the value and what is allowed. An unknown
`EDGESCRIBE_*` variable is warned about. Lists are comma-separated outside the file.

This file is generated: `make docs`.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How to show the settings, and options that change them."""
    parser.add_argument("--format", choices=("table", "markdown", "json"), default="table")
    parser.add_argument(
        "--reference", action="store_true", help="print the settings' reference as Markdown"
    )
    add_settings(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the settings."""
    if arguments.reference:
        print(reference(), end="")
        return 0
    loaded = load_settings(arguments)
    for warning in loaded.warnings:
        print(f"edgescribe: warning: {warning}", file=sys.stderr)
    print({"table": _table, "markdown": _markdown, "json": _json}[arguments.format](loaded))
    return 0


def reference() -> str:
    """The text of ``docs/configuration.md``."""
    parts = [REFERENCE_HEAD]
    for section in dict.fromkeys(setting.section for setting in TABLE):
        rows = [
            (
                f"`{setting.name}`",
                f"`{shown}`" if (shown := setting.shown(setting.default)) else "",
                setting.allowed,
                " ".join(f"`{name}`" for name in setting.variables),
                setting.description,
            )
            for setting in TABLE
            if setting.section == section
        ]
        head = ("setting", "default", "takes", "environment", "what it does")
        parts.append(f"## [{section}]\n\n" + _markdown_table(head, rows) + "\n")
    return "\n".join(parts)


def _rows(loaded: Loaded) -> list[tuple[str, str, str, str]]:
    return [
        (
            setting.name,
            setting.shown(loaded.value(setting)),
            loaded.sources[setting.name],
            setting.description,
        )
        for setting in TABLE
    ]


def _table(loaded: Loaded) -> str:
    rows = [("setting", "value", "source", "description"), *_rows(loaded)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    )


def _markdown(loaded: Loaded) -> str:
    rows = [
        (f"`{name}`", f"`{value}`" if value else "", source, description)
        for name, value, source, description in _rows(loaded)
    ]
    return _markdown_table(("setting", "value", "source", "description"), rows)


def _markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _json(loaded: Loaded) -> str:
    entries = {
        setting.name: {
            "value": _json_value(setting, loaded),
            "source": loaded.sources[setting.name],
            "section": setting.section,
            "environment": list(setting.variables),
            "description": setting.description,
        }
        for setting in TABLE
    }
    return msgspec.json.format(msgspec.json.encode(entries, enc_hook=str)).decode()


def _json_value(setting: Setting, loaded: Loaded) -> object:
    value: object = loaded.value(setting)
    return setting.shown(value) if setting.secret and value else value
