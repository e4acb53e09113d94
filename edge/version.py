"""The version of this installation, from the package's own metadata."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("edgescribe")
except PackageNotFoundError:
    VERSION = "0+uninstalled"
