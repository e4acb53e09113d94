from typing import Final, final

from typing_extensions import Buffer

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

def encode(opcode: int, payload: Buffer, *, fin: bool = True) -> bytes: ...
def encode_masked(opcode: int, payload: Buffer, key: bytes, *, fin: bool = True) -> bytes: ...
def encode_masked_many(opcode: int, payloads: list[bytes], keys: bytes) -> bytes: ...
def close_payload(code: int, reason: str = "") -> bytes: ...
def parse_close(payload: bytes) -> tuple[int, str]: ...
