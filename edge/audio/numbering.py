"""Packet numbers as senders count them, and where each packet belongs.

Bridges unwrap RTP's 16-bit numbers to plain growing integers, other senders do not; a source that
is replaced starts anywhere. All are placed on one endless count, the *position*.
"""

from __future__ import annotations

from _native.track import NextNumber

RANGE = 1 << 16
_HALF = RANGE // 2
# RFC 3550 appendix A.1: how far a number may jump ahead, or come late, and still belong.
_MAX_DROPOUT = 3000
_MAX_MISORDER = 100
_RUN_TO_RESTART = 5
_MAX_HOLES = 32


class Numbering(NextNumber):
    """Where a number belongs relative to the one expected next.

    ``expected`` is the number expected next, None while the next packet is free to set it. The
    owner moves it on directly when that very number comes; everything else goes through methods.
    """

    __slots__ = ("_behind", "_behind_run", "_floor", "_holes", "_offset")

    def __init__(self) -> None:
        self.expected: int | None = None
        self._offset = 0
        """Position minus number; while ``expected`` is None, the position expected next."""
        self._floor = 0
        """Where the present numbering began: no packet before it was ever played."""
        self._holes: list[tuple[int, int]] = []
        """Ranges of positions that were given up, oldest first."""
        self._behind: tuple[int, int] | None = None
        self._behind_run = 0

    @property
    def position(self) -> int:
        """The position expected next."""
        return self._offset + (self.expected or 0)

    def release(self) -> None:
        """Let the next packet set the number it likes."""
        self._offset, self.expected = self.position, None

    def restart_at(self, chunk: int) -> None:
        """Take ``chunk`` as the number expected next."""
        position = self.position
        self._offset, self.expected = position - chunk, chunk
        self._floor = position
        self._behind = None

    def advance(self, position: int, chunk: int) -> None:
        """The packet at ``position`` has been played; what is missing before it is lost."""
        if position > self.position:
            if len(self._holes) == _MAX_HOLES:
                self._floor = max(self._floor, self._holes.pop(0)[1])
            self._holes.append((self.position, position))
        self.expected, self._offset = chunk + 1, position - chunk

    def distance(self, chunk: int, expected: int) -> int | None:
        """Packets from ``expected`` on to ``chunk``, negative for one behind.

        None means that the numbers have started anew: they fell, or rose, by more than half the
        range of 16 bits and it is not the wrap from 65535 to 0.
        """
        ahead = chunk - expected
        if -_HALF <= ahead <= _HALF:
            return ahead
        if ahead < 0 <= chunk and expected <= RANGE and ahead + RANGE <= _MAX_DROPOUT:
            return ahead + RANGE
        if chunk < RANGE and -_MAX_MISORDER <= ahead - RANGE < 0:
            return ahead - RANGE
        return None

    def is_restart(self, chunk: int, ahead: int, received: int) -> bool:
        """Whether a packet far behind is one more of a run that shows the sender started anew.

        One stray number must not silence a track until its packets have caught up with it: five
        packets in a row with consecutive numbers win. ``received`` is a count of all packets.
        """
        if ahead >= -_MAX_MISORDER:
            return False
        in_a_row = self._behind == (chunk, received)
        self._behind_run = self._behind_run + 1 if in_a_row else 1
        self._behind = (chunk + 1, received + 1)
        return self._behind_run >= _RUN_TO_RESTART

    def was_played(self, position: int) -> bool:
        """Whether the packet of a position behind was played, so that another is a duplicate.

        Memory is bounded: of long ago it says False.
        """
        return position >= self._floor and not any(
            start <= position < stop for start, stop in self._holes
        )
