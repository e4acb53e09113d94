from typing import Final, final

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

class FrameError(Exception):
    code: int
    def __init__(self, code: int, reason: str) -> None: ...

class Taker:
    waiting: int
    @property
    def opcode(self) -> int: ...
    def offer(self, text: bytes) -> bool: ...

@final
class Decoder:
    def __new__(cls, max_message_bytes: int, *, masked: bool = True) -> Decoder: ...
    @property
    def pending(self) -> bool: ...
    @property
    def ended(self) -> bool: ...
    def decode(
        self, data: bytes, limit: int = ..., taker: Taker | None = None
    ) -> list[tuple[int, bytes]]: ...

def parse_close(payload: bytes) -> tuple[int, str]: ...
