from typing import Any

from _native.frames import Taker

class MediaIntake(Taker):
    due: list[Any]
    crowded: list[Any]
    def __init__(self, tracks: dict[str, Any]) -> None: ...
    def settle(self) -> tuple[int, int, float, float]: ...
