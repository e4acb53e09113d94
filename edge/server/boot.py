"""What the main process tells each worker when it starts."""

from __future__ import annotations

import msgspec

from edge.settings import Settings


class Boot(msgspec.Struct, frozen=True, kw_only=True):
    """Facts fixed before the workers exist; goes to them by pickling."""

    settings: Settings
    parent: int
    """Process id of the main process."""
    run_dir: str
    """A folder for what lives as long as this run."""
    embedded_socket: str
    """Where the inference process of the embedded recognizer listens."""
