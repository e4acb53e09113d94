"""What a ``start`` announces, and what the query says of tags without one: forms of audio."""

from __future__ import annotations

import msgspec

from edge.audio.container import Container
from edge.audio.pcm import PcmFormat
from edge.ingest.events import Start

_PCM_ENCODINGS = ("l16", "l16-be")
_CONTAINERS: dict[str, Container] = {"ogg-opus": "ogg", "ogg": "ogg", "webm": "webm"}


class MediaForm(msgspec.Struct, frozen=True):
    """How a tag's payloads are read; bare Opus packets if both are None."""

    pcm: PcmFormat | None = None
    container: Container | None = None


def container_of(encoding: str) -> Container | None:
    """The container that payloads of this encoding are pieces of, if they are."""
    return _CONTAINERS.get(encoding)


def announced(start: Start, query_encoding: str) -> MediaForm | str:
    """The form of audio a ``start`` announces, or why it cannot be taken.

    Bridges announce Opus whatever it is wrapped in: that is what the query says.
    """
    if start.problem is not None:
        return start.problem
    if start.encoding not in _PCM_ENCODINGS:
        encoding = query_encoding if start.encoding == "opus" else start.encoding
        return MediaForm(container=container_of(encoding))
    pcm = PcmFormat(
        rate_hz=start.rate_hz, channels=start.channels, big_endian=start.encoding == "l16-be"
    )
    return pcm.problem or MediaForm(pcm)
