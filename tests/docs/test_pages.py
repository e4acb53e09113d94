"""The documents: generated pages are current, the site builds, and what can be run in them runs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.demo.speech import demo_recordings, read_wav, resample
from tests.docs.endpoints import document_of, page
from tests.support.server import free_port, running

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
BLOCK = re.compile(r"^```(sh|python) run\n(.*?)^```$", re.M | re.S)
WITHIN_S = 50
START = """
edgescribe serve --workers 1 &
until edgescribe probe ready; do sleep 0.2; done
"""


def test_the_page_of_endpoints_is_what_a_gateway_says() -> None:
    with running("--workers", "1", "--set", "enable_dummy_provider=true") as server:
        said = page(document_of(server))
    assert (DOCS / "endpoints.md").read_text(encoding="utf-8") == said, "make docs"


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    done = subprocess.run(
        [*command, str(DOCS), str(tmp_path / "html")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "html" / "index.html").is_file()


def script_of(document: Path) -> str:
    """What can be run in a document, one after the other; a gateway is started if none is."""
    parts = []
    for kind, text in BLOCK.findall(document.read_text(encoding="utf-8")):
        parts.append(text if kind == "sh" else f"python - <<'END'\n{text}END\n")
    script = "\n".join(parts)
    return script if not script or "edgescribe serve" in script else START + script


RUNNABLE = [document for document in sorted(DOCS.glob("*.md")) if script_of(document)]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real speech at 16 kHz."""
    spoken = next(each for each in demo_recordings() if each.name == "beckett")
    read = read_wav(spoken.path)
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    samples = resample(np.frombuffer(read.pcm, "<i2"), read.rate_hz, 16000)
    with wave.open(str(path), "wb") as wav:
        wav.setparams((1, 2, 16000, 0, "NONE", ""))
        wav.writeframes(samples.tobytes())
    return path


@pytest.fixture
def tools(tmp_path: Path) -> Iterator[Path]:
    """A folder with the commands that the documents use."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, words in {"edgescribe": "-m edge ", "python": ""}.items():
        command = folder / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}"$@"\n')
        command.chmod(0o755)
    yield folder


@pytest.mark.parametrize("document", RUNNABLE, ids=lambda document: document.stem)
def test_what_a_document_says_to_run_runs(
    document: Path, recording: Path, tools: Path, tmp_path: Path
) -> None:
    assert shutil.which("curl"), "the documents use curl"
    script = tmp_path / "script.sh"
    port = str(free_port())
    text = script_of(document).replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    script.write_text("set -euo pipefail\n" + text, encoding="utf-8")
    shutil.copy(recording, tmp_path / "speech.wav")
    environment = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(REPOSITORY),
        "EDGESCRIBE_PORT": port,
        "LANG": "C.UTF-8",
    }
    running_script = subprocess.Popen(
        ["bash", str(script)],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        # The gateway that a script leaves behind holds its output open.
        status = running_script.wait(WITHIN_S)
    finally:
        os.killpg(running_script.pid, signal.SIGTERM)
        said, _ = running_script.communicate(timeout=30)
    assert status == 0, said
