"""A build has the version of its tag; without tags, or without a repository, it has one, too."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import REPOSITORY

IDENTITY = ("-c", "user.name=someone", "-c", "user.email=someone@example.org")


def git(tree: Path, *arguments: str) -> None:
    subprocess.run(["git", *IDENTITY, *arguments], cwd=tree, check=True, capture_output=True)


def version(tree: Path) -> str:
    done = subprocess.run(
        [tree / "tools" / "version.sh", sys.executable],
        env={"PATH": os.environ["PATH"], "HOME": str(tree)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What decides the version, in a folder that is no clone yet."""
    (tmp_path / "tools").mkdir()
    for name in ("pyproject.toml", "tools/version.sh"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    return tmp_path


def test_a_tag_is_the_version_and_what_follows_it_comes_before_the_next(tree: Path) -> None:
    assert version(tree) == "0.1.dev0"
    git(tree, "init", "-q")
    git(tree, "add", ".")
    git(tree, "commit", "-q", "-m", "first")
    assert version(tree) == "0.1.dev1"
    git(tree, "tag", "v1.2.3")
    assert version(tree) == "1.2.3"
    git(tree, "commit", "-q", "--allow-empty", "-m", "second")
    assert version(tree) == "1.2.4.dev1"
