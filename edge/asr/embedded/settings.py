"""Settings of the embedded recognizer."""

from __future__ import annotations

import os
from typing import Annotated

import msgspec

from edge.option import option


class EmbeddedSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator may choose about the embedded recognizer."""

    embedded_threads: Annotated[
        int,
        option("Threads that turn speech to text, machine-wide; 0 is one per core", ge=0, le=64),
    ] = 0
    """Each may take a whole core while people speak."""
    embedded_interim_ms: Annotated[
        int,
        option("Speech between two interim transcripts; halved while there is capacity", ge=200),
    ] = 1000
    """Each interim decodes the open utterance again; they are skipped first under load."""
    embedded_end_silence_ms: Annotated[
        int, option("Silence that ends an utterance", ge=200, le=2000)
    ] = 400
    """Shorter makes finals earlier, and parts sentences at smaller pauses."""

    @property
    def threads(self) -> int:
        """The number of inference threads to start."""
        if self.embedded_threads:
            return self.embedded_threads
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1
