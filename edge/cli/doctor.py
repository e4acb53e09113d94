"""``edgescribe doctor``: what is here, what is missing, and the line that mends it."""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple

from edge.asr.registry import survey
from edge.cli.arguments import add_settings, load_settings
from edge.errors import NoRecognizer, SettingError
from edge.server.settings import ServerSettings
from edge.settings import Settings

OWN_PACKAGES = ("edge", "_native", "dispatch", "router")
OLDEST_PYTHON = (3, 11)
RANGES = {"websockets": ((15,), (18,)), "sanic": ((25, 12), (25, 13))}
"""From (included) and below which versions the gateway is tested."""


class Finding(NamedTuple):
    """One line of the report; ``mend`` is what to do about it, empty when all is well."""

    subject: str
    detail: str
    mend: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options for the settings that are checked."""
    add_settings(parser, names=("host", "port", "tls_cert", "tls_key", "data_dir"))


def run(arguments: argparse.Namespace) -> int:
    """Print the report; 0 when nothing needs mending."""
    loaded = load_settings(arguments)
    findings = list(examine(loaded.settings))
    findings += [Finding("settings", warning, "correct or unset it") for warning in loaded.warnings]
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        mark = "bad" if finding.mend else "ok "
        print(f"{mark}  {finding.subject.ljust(width)}  {finding.detail}")
        if finding.mend:
            print(f"     {' ' * width}  mend: {finding.mend}")
    return 1 if any(finding.mend for finding in findings) else 0


def examine(settings: Settings) -> Iterator[Finding]:
    """Every finding, the basics first."""
    from edge.version import VERSION

    yield Finding("edgescribe", VERSION)
    yield _python()
    yield from _shadows()
    yield _libopus()
    yield _loop()
    for name in RANGES:
        yield _version(name)
    yield from _recognizers(settings)
    yield _port(settings.server.host, settings.server.port)
    yield from _certificate(settings.server)
    yield _directory(settings.server.data_dir)


def _python() -> Finding:
    here = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < OLDEST_PYTHON:
        return Finding("python", here, "install Python 3.11 or newer")
    return Finding("python", here)


def _shadows() -> Iterator[Finding]:
    """Top-level names are short; another distribution may have brought the same ones."""
    home = Path(__file__).resolve().parent.parent.parent
    owners = metadata.packages_distributions()
    for name in OWN_PACKAGES:
        spec = util.find_spec(name)
        if spec is None or spec.origin is None:
            yield Finding(
                f"package {name}", "not found", "pip install --force-reinstall edgescribe"
            )
            continue
        found = Path(spec.origin).resolve()
        strangers = sorted(set(owners.get(name, ())) - {"edgescribe"})
        if found.parent.parent != home:
            owner = ", ".join(strangers) or "another package"
            mend = f"pip uninstall {' '.join(strangers)}" if strangers else f"move {found.parent}"
            yield Finding(f"package {name}", f"{found} of {owner} hides ours", mend)
        elif strangers:
            yield Finding(
                f"package {name}",
                f"{', '.join(strangers)} writes into {found.parent} too",
                f"pip uninstall {' '.join(strangers)}, then reinstall edgescribe",
            )


def _libopus() -> Finding:
    mend = "apt-get install libopus-dev pkg-config  /  brew install opus pkg-config, then reinstall"
    try:
        from _native import opus
    except ImportError as error:
        return Finding("libopus", str(error), mend)
    return Finding("libopus", f"{opus.version()}{_loaded_from('libopus')}")


def _loaded_from(library: str) -> str:
    """`` at PATH`` of a shared library of this process, where the system tells."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return ""
    paths = (line.split(maxsplit=5)[-1] for line in lines)
    return next((f" at {path}" for path in paths if Path(path).name.startswith(library)), "")


def _loop() -> Finding:
    try:
        return Finding("uvloop", metadata.version("uvloop"))
    except metadata.PackageNotFoundError:
        return Finding("uvloop", "not installed", "pip install uvloop")


def _version(name: str) -> Finding:
    (low, high) = (".".join(map(str, bound)) for bound in RANGES[name])
    wanted = f"{name}>={low},<{high}"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, "not installed", f"pip install '{wanted}'")
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if RANGES[name][0] <= parts < RANGES[name][1]:
        return Finding(name, version)
    return Finding(name, version, f"pip install '{wanted}'")


def _recognizers(settings: Settings) -> Iterator[Finding]:
    """Those that cannot be used need no mending while another one can."""
    from edge.compose import recognizer_config

    try:
        found = survey(recognizer_config(settings))
    except NoRecognizer as error:
        for name, reason in error.reasons.items():
            yield Finding(f"recognizer {name}", "cannot be used", reason)
        return
    for recognizer in found.recognizers:
        default = ", the default" if recognizer.name == found.default else ""
        state = f"not used: {recognizer.missing}" if recognizer.missing else "ready" + default
        yield Finding(f"recognizer {recognizer.name}", state)


def _port(host: str, port: int) -> Finding:
    from edge.server.listener import ListenFailed, listen

    try:
        listen(host, port).close()
    except ListenFailed as error:
        return Finding("port", str(error), "stop what listens there, or choose another with --port")
    return Finding("port", f"{host}:{port} is free" if port else "any free one will be taken")


def _certificate(server: ServerSettings) -> Iterator[Finding]:
    """Nothing for a gateway without TLS."""
    from edge.server.tls import credentials, valid_until

    try:
        if pair := credentials(server):
            yield Finding("certificate", f"{pair.cert} is valid until {valid_until(pair)}")
    except SettingError as error:
        yield Finding("certificate", f"{error.name}={error.value}", error.allowed)


def _directory(path: Path) -> Finding:
    where = path.absolute()
    nearest = next(parent for parent in (where, *where.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        return Finding("data directory", f"{where}: {reason}", "choose another with --data-dir")
    state = "is writable" if nearest == where else "can be created"
    return Finding("data directory", f"{where} {state}")
