"""A worker's memory follows what it carries, not the most it ever carried."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tests.support.server import REPOSITORY, clean_environment

A_PEAK = """
import os
from pathlib import Path
from edge.server.memory import releaser

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

release = releaser()
large, small = [], []
for _ in range(2000):
    large.append(bytearray(20_000))
    small.append(bytearray(1_000))
large.clear()
before_mb = resident_mb()
release()
print(before_mb - resident_mb())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back")
def test_memory_between_blocks_in_use_goes_back_to_the_system() -> None:
    """Forty megabytes are free, and no two pieces of them lie together."""
    done = subprocess.run(
        [sys.executable, "-c", A_PEAK],
        env=clean_environment(),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 20
