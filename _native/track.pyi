"""See track.pyx."""

from typing import Any, Protocol

NEVER: int
STATS_FIELDS: tuple[str, ...]

class Numbers(Protocol):
    expected: int | None

class TrackStats:
    received: int
    decoded: int
    corrupt: int
    late: int
    duplicate: int
    empty: int
    unplayed: int
    reordered: int
    lost: int
    recovered_fec: int
    concealed: int
    silenced: int
    skipped: int
    silence_ms: int
    jumps: int
    restarts: int
    container_faults: int
    overflow_dropped_ms: int
    shed_ms: int

class StepRing:
    count: int
    first: int
    start: int
    end: int
    unplayed: int
    stats: TrackStats
    def __init__(self, limit_ms: int, stats: TrackStats) -> None: ...
    @property
    def unplayed_packets(self) -> int: ...
    @property
    def crowding(self) -> float: ...
    def put_packet(self, payload: bytes, samples: int) -> None: ...
    def put_other(self, step: object, samples: int, is_pcm: bool) -> None: ...
    def at(self, number: int) -> tuple[int, bytes | None, Any]: ...
    def packets(self, number: int, samples: int) -> tuple[list[bytes], int]: ...
    def forget(self, until: int) -> None: ...
    def find(self, position: int) -> tuple[int, int]: ...
    def mark(self, number: int, is_packet: bool, sound: bool) -> None: ...
    def mark_run(self, number: int, packets: int) -> None: ...

class NextNumber:
    expected: int | None

class PacketOrder:
    stats: TrackStats
    numbers: Any
    clock: int
    last_packet_s: float | None
    anchored: bool
    unsettled: bool
    in_pieces: bool
    frame: int
    patience_s: float
    wake_s: float
    end: int
    speech_end: int

    def __init__(self) -> None: ...

def waking(orders: dict[Any, PacketOrder], now_s: float) -> list[Any]: ...
def next_wake(orders: dict[Any, PacketOrder]) -> float: ...

class PacketIntake:
    order: PacketOrder
    ring: StepRing
    due: int
    def __init__(self, order: PacketOrder, ring: StepRing) -> None: ...
