"""How these pages become a site: ``make html``."""

from __future__ import annotations

from edge.version import VERSION

project = "edgescribe"
version = release = VERSION
extensions = ["myst_parser"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = project
highlight_language = "none"
exclude_patterns = ["_build"]
# Examples leave things out with "…", which their languages do not know.
suppress_warnings = ["misc.highlighting_failure"]
