"""Python environments of their own, for clients whose dependencies clash with ours."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

BUILD_LIMIT_S = 240
UNREACHABLE = (
    "could not connect",
    "connection refused",
    "connection error",
    "dns error",
    "error sending request",
    "failed to fetch",
    "max retries exceeded",
    "name resolution",
    "network is unreachable",
    "no matching distribution",
    "timed out",
)
"""What uv and pip say when there is no package index."""


def foreign_python(cache: pytest.Cache, name: str, requirements: Sequence[str]) -> Path:
    """The interpreter of an environment with these packages, built once and kept between runs.

    The test is skipped, loudly, only if the package index cannot be reached.
    """
    digest = hashlib.sha256("\n".join((sys.version, *requirements)).encode()).hexdigest()[:12]
    folder = Path(cache.mkdir(f"environment-{name}")) / digest
    python, complete = folder / "bin" / "python", folder / "complete"
    with folder.with_suffix(".lock").open("w") as lock:
        # Files of tests that run side by side may want the same one.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (complete.exists() and python.exists()):
            shutil.rmtree(folder, ignore_errors=True)
            _build(name, folder, python, requirements)
            complete.touch()
    return python


async def output_of(*command: str, stdin: bytes = b"") -> str:
    """What a command prints; it has to end well, within a minute."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(stdin), 60)
    assert process.returncode == 0, errors.decode()
    return output.decode()


def _build(name: str, folder: Path, python: Path, requirements: Sequence[str]) -> None:
    uv = shutil.which("uv")
    if uv:
        _run(name, [uv, "venv", "--quiet", "--python", sys.executable, str(folder)])
        _run(name, [uv, "pip", "install", "--quiet", "--python", str(python), *requirements])
    else:
        _run(name, [sys.executable, "-m", "venv", str(folder)])
        _run(name, [str(python), "-m", "pip", "install", "--quiet", *requirements])


def _run(name: str, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_LIMIT_S)
    if done.returncode == 0:
        return
    if any(phrase in done.stderr.lower() for phrase in UNREACHABLE):
        pytest.skip(f"NOT TESTED: no package index to build the environment {name!r} from")
    pytest.fail(f"environment {name!r} could not be built:\n{done.stderr}")
