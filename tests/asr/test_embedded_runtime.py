"""The model library keeps to itself: no usage reports, no files of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime", reason="pip install 'edgescribe[embedded]'")


def test_loading_the_model_library_starts_no_telemetry(tmp_path: Path) -> None:
    """With telemetry on, the library keeps a session file in the directory for temporary files."""
    script = """
import os
from edge.asr.embedded import runtime
print(os.environ["ORT_DISABLE_TELEMETRY"])
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[2],
        env={"TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.stdout.strip() == "1", done.stderr
    assert list(tmp_path.iterdir()) == []
