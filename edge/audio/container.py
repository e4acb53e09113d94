"""Audio that comes in a container: pieces of an Ogg or WebM stream to packets with numbers."""

from __future__ import annotations

from typing import Literal, Protocol

from _native import ogg, webm
from _native.opus import InvalidPacket, packet_samples
from edge.audio.steps import CLOCK_HZ

Container = Literal["ogg", "webm"]

_DAMAGE = (ogg.OggError, webm.WebmError)
_FRAME = CLOCK_HZ // 50
MOST_PACKETS = 3000
"""Packets in one piece: a minute's worth. Pieces of 48 KiB could hold 20,000 that say nothing."""
_MOST_BEHIND = 64
"""Pieces that are numbered so little too low came twice; lower ones begin a new numbering."""


class UnusableContainer(Exception):
    """What a sender announced as a container of Opus is none; ``str()`` says what it is."""


class _Demuxer(Protocol):
    @property
    def streams(self) -> int: ...

    @property
    def faults(self) -> int: ...

    def feed(self, data: bytes) -> list[tuple[int, bytes]]: ...

    def lost(self) -> None: ...


class ContainerIntake:
    """Turns a sender's pieces of one container into packets that a sequencer takes.

    The first piece with audio says where the container's own clock lies on the sender's; from then
    on that clock gives every packet its time. A later stream in the same container (a recorder that
    was started anew) begins at its piece's time if that is later. Packets are numbered here, one
    after the other; numbers are left out for what was lost. That is whatever an Ogg stream leaves
    out, but of WebM, in which recorders may pause, only what goes with a missing piece.
    """

    __slots__ = (
        "_anchor",
        "_demuxer",
        "_end",
        "_gaps_are_losses",
        "_is_lost",
        "_next_piece",
        "_number",
        "_seek_anchor",
        "_streams",
        "longest_piece",
    )

    def __init__(self, container: Container) -> None:
        self._demuxer: _Demuxer = ogg.Demuxer() if container == "ogg" else webm.Demuxer()
        self._anchor = 0
        """Media time of position 0 of the container."""
        self._seek_anchor = True
        """Whether the next piece with audio sets it."""
        self._streams = 0
        self._next_piece: int | None = None
        self._number = 0
        self._end = 0
        """Where the last packet ended, on the container's clock."""
        self._gaps_are_losses = container == "ogg"
        self._is_lost = False
        """Whether something is missing before the next packet."""
        self.longest_piece = 0
        """Samples of the most audio that a piece has brought: what to expect between pieces."""

    @property
    def faults(self) -> int:
        """Parts of the container that were missing or damaged so far."""
        return self._demuxer.faults

    def rejoin(self) -> None:
        """Pieces come over another connection: what came between is missing, numbers are new."""
        self._demuxer.lost()
        self._seek_anchor = True
        self._next_piece = None

    def read(
        self, chunk: int | None, timestamp: int | None, piece: bytes, now: int
    ) -> list[tuple[int, int, bytes]]:
        """Number, media time and bytes of each packet that this piece completes, in order.

        ``chunk`` numbers the pieces; ``timestamp`` is the media time of the first audio in it, and
        ``now`` what stands in for it if there is none. Raises ``UnusableContainer``; the intake is
        of no use after that.
        """
        if not self._is_next(chunk):
            return []
        try:
            packets = self._demuxer.feed(piece)
        except _DAMAGE as error:
            raise UnusableContainer(str(error)) from None
        if len(packets) > MOST_PACKETS:
            raise UnusableContainer(
                f"a piece with {len(packets)} packets; send at most {MOST_PACKETS} in one"
            )
        if not packets:
            return []
        first = packets[0][0]
        if self._settle_anchor(first, timestamp, now):
            self._end = first
        numbered = [self._numbered(position, packet) for position, packet in packets]
        self.longest_piece = max(self.longest_piece, self._end - first)
        return numbered

    def _numbered(self, position: int, packet: bytes) -> tuple[int, int, bytes]:
        try:
            samples = packet_samples(packet)
        except InvalidPacket:
            samples = _FRAME
        ahead = position - self._end
        if ahead > 0 and (self._is_lost or self._gaps_are_losses):
            self._number += round(ahead / samples)
        self._is_lost = False
        self._end = position + samples
        number, self._number = self._number, self._number + 1
        return number, self._anchor + position, packet

    def _is_next(self, chunk: int | None) -> bool:
        """Whether a piece is to be read; if some before it are missing the demuxer is told."""
        if chunk is None:
            return True
        ahead = 0 if self._next_piece is None else chunk - self._next_piece
        if -_MOST_BEHIND <= ahead < 0:
            return False
        self._next_piece = chunk + 1
        if ahead > 0:
            self._demuxer.lost()
            self._is_lost = True
        return True

    def _settle_anchor(self, position: int, timestamp: int | None, now: int) -> bool:
        """Set the container's clock if that is due; ``position`` is the next packet's.

        True says that what comes before that packet is none of its stream's.
        """
        is_new, self._streams = self._streams != self._demuxer.streams, self._demuxer.streams
        if self._seek_anchor:
            self._anchor = (now if timestamp is None else timestamp) - max(0, position)
            self._seek_anchor = False
            return True
        if is_new and timestamp is not None:
            self._anchor = max(self._anchor, timestamp - position)
        return is_new
