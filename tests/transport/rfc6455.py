"""RFC 6455 as a table: what a client sends, and all that it may get back.

Numbered like the cases of the Autobahn test suite: 1 framing, 2 pings and pongs, 3 reserved bits,
4 opcodes, 5 fragmentation, 6 UTF-8, 7 the close, 9 long messages and chopped streams. The server
echoes messages; one is at most ``MAX_MESSAGE_BYTES`` long.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from typing import NamedTuple

from _native import frame_writer
from _native.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT

MAX_MESSAGE_BYTES = 1 << 20
KEY = b"\x37\xfa\x21\x3d"

Frame = tuple[int, bytes]


class Case(NamedTuple):
    """One conversation. ``sent`` are writes; a number waits until so many echoes have come."""

    id: str
    sent: tuple[bytes | int, ...]
    echoes: tuple[Frame, ...] = ()
    pongs: tuple[bytes, ...] = ()
    close: int | None = None
    """Code of the server's close frame; None = the client ends it with 1000, which is echoed."""
    differs: str = ""
    """Why ``websockets`` may answer otherwise, where it does."""


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0) -> bytes:
    """A masked frame, legal or not; ``reserved`` is RSV1 to RSV3 as a number from 0 to 7."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", (fin << 7) | (reserved << 4) | opcode, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", (fin << 7) | (reserved << 4) | opcode, 0xFE, size)
    else:
        head = struct.pack("!BBQ", (fin << 7) | (reserved << 4) | opcode, 0xFF, size)
    # The library's own encoder refuses illegal frames; a legal one lends its masking.
    body = frame_writer.encode_masked(BINARY, payload, KEY)[len(head) + 4 :]
    return head + KEY + body


def close(code: int | None, reason: bytes = b"") -> bytes:
    """A close frame, legal or not."""
    return frame(CLOSE, (b"" if code is None else struct.pack("!H", code)) + reason)


def pieces(opcode: int, *parts: bytes) -> bytes:
    """One message in a frame for each part."""
    last = len(parts) - 1
    return b"".join(
        frame(CONTINUATION if n else opcode, part, fin=n == last) for n, part in enumerate(parts)
    )


def chop(data: bytes, size: int) -> tuple[bytes, ...]:
    """``data`` in writes of ``size`` bytes."""
    return tuple(data[at : at + size] for at in range(0, len(data), size))


def echo(case: str, opcode: int, payload: bytes, writes: tuple[bytes, ...] = ()) -> Case:
    """A message that comes back unchanged."""
    return Case(case, writes or (frame(opcode, payload),), ((opcode, payload),))


def framing() -> Iterator[Case]:
    """1: every shape of the length field."""
    for group, opcode in ((1, TEXT), (2, BINARY)):
        for number, size in enumerate((0, 125, 126, 127, 128, 65535, 65536), 1):
            yield echo(f"1.{group}.{number}", opcode, b"*" * size)
        whole = frame(opcode, b"*" * 65536)
        yield echo(f"1.{group}.8", opcode, b"*" * 65536, chop(whole, 997))
        long_form = bytes([0x80 | opcode, 0xFF]) + struct.pack("!Q", 3) + KEY + frame(2, b"abc")[6:]
        yield echo(f"1.{group}.9", opcode, b"abc", (long_form,))
    yield Case("1.3.1", (frame_writer.encode(TEXT, b"not masked"),), close=1002)
    top_bit = b"\x82\xff" + struct.pack("!Q", 1 << 63) + KEY
    yield Case(
        "1.3.2", (top_bit,), close=1002,
        differs="websockets takes the length for one too long, 1009; section 5.2 forbids the bit",
    )  # fmt: skip


def pings() -> Iterator[Case]:
    """2: a ping comes back as a pong with its payload, a pong is no question."""
    payloads = (b"", b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125)
    for number, payload in enumerate(payloads, 1):
        yield Case(f"2.{number}", (frame(PING, payload),), pongs=(payload,))
    yield Case("2.5", (frame(PING, b"\xfe" * 126),), close=1002)
    yield Case("2.6", chop(frame(PING, b"\xfe" * 125), 1), pongs=(b"\xfe" * 125,))
    yield Case("2.7", (frame(PONG),))
    yield Case("2.8", (frame(PONG, b"unsolicited pong payload"),))
    yield Case("2.9", (frame(PONG, b"unsolicited"), frame(PING, b"ping")), pongs=(b"ping",))
    ten = tuple(b"payload-%d" % n for n in range(10))
    yield Case("2.10", (b"".join(frame(PING, payload) for payload in ten),), pongs=ten)
    yield Case("2.11", chop(b"".join(frame(PING, payload) for payload in ten), 1), pongs=ten)


def reserved_bits() -> Iterator[Case]:
    """3: no extension is ever agreed on, so every reserved bit is a fault."""
    hello = (TEXT, b"Hello, world!")
    for number, bits in enumerate(range(1, 8), 1):
        opcode = (TEXT, TEXT, TEXT, TEXT, BINARY, PING, CLOSE)[number - 1]
        bad = frame(opcode, reserved=bits)
        yield Case(f"3.{number}", (frame(*hello), 1, bad + frame(PING)), (hello,), close=1002)
    yield Case("3.8", chop(frame(TEXT, b"x", reserved=4), 1), close=1002)
    yield Case(
        "3.9", (pieces(TEXT, b"a", b"b")[:7] + frame(CONTINUATION, b"b", reserved=4),), close=1002
    )


def opcodes() -> Iterator[Case]:
    """4: opcodes 3 to 7 and 11 to 15 do not exist."""
    hello = (TEXT, b"Hello, world!")
    for group, unknown in ((1, range(3, 8)), (2, range(11, 16))):
        for number, opcode in enumerate(unknown, 1):
            payload = b"" if number % 2 else b"reserved opcode payload"
            bad = frame(opcode, payload)
            if number < 3:
                yield Case(f"4.{group}.{number}", (bad,), close=1002)
            else:
                yield Case(
                    f"4.{group}.{number}", (frame(*hello), 1, bad + frame(PING)), (hello,),
                    close=1002,
                )  # fmt: skip


def fragmentation() -> Iterator[Case]:
    """5: control frames may stand between the pieces of a message, nothing else may."""
    yield Case("5.1", (frame(PING, b"frag", fin=False) + frame(CONTINUATION, b"ment"),), close=1002)
    yield Case("5.2", (frame(PONG, b"frag", fin=False) + frame(CONTINUATION, b"ment"),), close=1002)
    two = pieces(TEXT, b"fragment1", b"fragment2")
    whole = (TEXT, b"fragment1fragment2")
    yield Case("5.3", (two,), (whole,))
    yield Case("5.4", chop(two, 15), (whole,))
    yield Case("5.5", chop(two, 1), (whole,))
    first, second = two[:15], two[15:]
    yield Case("5.6", (first + frame(PING, b"ping") + second,), (whole,), (b"ping",))
    yield Case("5.7", (first, frame(PING, b"ping"), second), (whole,), (b"ping",))
    yield Case("5.8", chop(first + frame(PING, b"ping") + second, 1), (whole,), (b"ping",))
    nothing_to_continue = frame(CONTINUATION, b"non-continuation payload")
    hello = (TEXT, b"Hello, world!")
    for number, end in enumerate((True, True, True, False, False, False), 9):
        bad = frame(CONTINUATION, b"non-continuation payload", fin=end) + frame(*hello)
        yield Case(f"5.{number}", chop(bad, (len(bad), 30, 1)[number % 3]), close=1002)
    yield Case("5.15", (two, 1, nothing_to_continue + frame(*hello)), (whole,), close=1002)
    for number, end in ((16, False), (17, True)):
        bad = frame(CONTINUATION, b"fragment1", fin=end) + pieces(TEXT, b"fragment2", b"fragment3")
        yield Case(f"5.{number}", (bad * 2,), close=1002)
    yield Case("5.18", (frame(TEXT, b"fragment1", fin=False) + frame(TEXT, b"2"),), close=1002)
    middle = frame(CONTINUATION, b"fragment2", fin=False)
    five = (
        frame(TEXT, b"fragment1", fin=False), middle, frame(PING, b"pongme 1!"),
        middle, frame(PING, b"pongme 2!"), frame(CONTINUATION, b"fragment5"),
    )  # fmt: skip
    joined = ((TEXT, b"fragment1fragment2fragment2fragment5"),)
    both = (b"pongme 1!", b"pongme 2!")
    yield Case("5.19", (b"".join(five),), joined, both)
    yield Case("5.20", five, joined, both)
    yield echo("5.21", TEXT, b"", (pieces(TEXT, b"", b"", b""),))
    yield echo("5.22", BINARY, b"middle", (pieces(BINARY, b"", b"middle", b""),))
    yield Case("5.23", (frame(BINARY, b"a", fin=False) + frame(BINARY, b"b"),), close=1002)


KOSME = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"
"""The Greek word of Kuhn's stress test, with an accent of three bytes."""

UTF8_VALID: dict[str, tuple[bytes, ...]] = {
    # Every group is one section of Kuhn's decoder stress test, in the order Autobahn gives them.
    "6.1": (b"", "Hello-µ@ßöäüàá-UTF-8!!".encode()),
    "6.5": (KOSME, "Hello-µ@ßöäüàá-UTF-8!!".encode()),
    "6.6": tuple(KOSME[:end] for end in (2, 5, 7, 9, 11)),
    "6.7": (b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"),
    "6.9": (b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"),
    "6.11": (b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xf4\x8f\xbf\xbf"),
    "6.22": tuple(
        chr((plane << 16) | low).encode() for plane in range(17) for low in (0xFFFE, 0xFFFF)
    ),
    "6.23": tuple(chr(code).encode() for code in range(0xFFF9, 0x10000)),
}
SURROGATES = (b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xaf\xbf")
LOW_SURROGATES = (b"\xed\xb0\x80", b"\xed\xbe\x80", b"\xed\xbf\xbf")
CUT_SHORT = (
    b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xf8\x80\x80\x80", b"\xfc\x80\x80\x80\x80",
    b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf", b"\xfb\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf",
)  # fmt: skip
UTF8_INVALID: dict[str, tuple[bytes, ...]] = {
    "6.3": (KOSME + b"\xed\xa0\x80edited",),
    "6.6": tuple(KOSME[:end] for end in (1, 3, 4, 6, 8, 10)),
    "6.8": (b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"),
    "6.10": (b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"),
    "6.11": (b"\xf4\x90\x80\x80",),
    "6.12": (
        b"\x80", b"\xbf", *(b"\x80\xbf" * n + b"\x80" for n in range(1, 4)),
        bytes(range(0x80, 0xC0)),
    ),
    "6.13": tuple(
        b"".join(bytes([lead, 0x20]) for lead in range(first, end))
        for first, end in ((0xC0, 0xE0), (0xE0, 0xF0), (0xF0, 0xF8), (0xF8, 0xFC), (0xFC, 0xFE))
    ),
    "6.14": CUT_SHORT,
    "6.15": (b"".join(CUT_SHORT),),
    "6.16": (b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"),
    "6.17": (
        b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf",
        b"\xfc\x80\x80\x80\x80\xaf",
    ),
    "6.18": (
        b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf8\x87\xbf\xbf\xbf",
        b"\xfc\x83\xbf\xbf\xbf\xbf",
    ),
    "6.19": (
        b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf8\x80\x80\x80\x80",
        b"\xfc\x80\x80\x80\x80\x80",
    ),
    "6.20": (*SURROGATES, *LOW_SURROGATES),
    "6.21": tuple(
        high + low for high in SURROGATES for low in (LOW_SURROGATES[0], LOW_SURROGATES[-1])
    ),
}  # fmt: skip


def utf8() -> Iterator[Case]:
    """6: text is UTF-8 as a whole, wherever its frames and writes are cut."""
    for group, texts in UTF8_VALID.items():
        for number, text in enumerate(texts, 1):
            octets = [text[at : at + 1] for at in range(len(text))] or [b""]
            yield echo(f"{group}.v{number}", TEXT, text)
            yield echo(f"{group}.v{number}/frames", TEXT, text, (pieces(TEXT, *octets),))
            yield echo(f"{group}.v{number}/writes", TEXT, text, chop(frame(TEXT, text), 1))
    for group, texts in UTF8_INVALID.items():
        for number, text in enumerate(texts, 1):
            octets = [text[at : at + 1] for at in range(len(text))]
            yield Case(f"{group}.i{number}", (frame(TEXT, text),), close=1007)
            yield Case(f"{group}.i{number}/frames", (pieces(TEXT, *octets),), close=1007)
            yield Case(f"{group}.i{number}/writes", chop(frame(TEXT, text), 1), close=1007)
            yield echo(f"{group}.i{number}/binary", BINARY, text)
    halves = pieces(TEXT, KOSME[:3], KOSME[3:])
    yield Case("6.2.1", (halves[:9] + frame(PING, b"\xff") + halves[9:],),
               ((TEXT, KOSME),), (b"\xff",))  # fmt: skip
    at_once = "websockets judges a text when it is complete; section 8.1 lets a server fail sooner"
    for number, bad in enumerate((b"\xf4\x90\x80\x80", b"\xed\xa0\x80", b"\xc0"), 1):
        begun = frame(TEXT, KOSME + bad, fin=False)
        yield Case(f"6.4.{number}", (begun,), close=1007, differs=at_once)
        part = frame(TEXT, KOSME + bad + b"never sent")[: -len(b"never sent")]
        yield Case(f"6.4.{number + 3}", (part,), close=1007, differs=at_once)


def closing() -> Iterator[Case]:
    """7: codes and reasons of close frames, and what may still follow one."""
    hello = (TEXT, b"Hello World!")
    yield Case("7.1.1", (frame(*hello), 1), (hello,))
    yield Case("7.1.2", (close(1000), close(1000)), close=1000)
    yield Case("7.1.3", (close(1000) + frame(PING, b"late"),), close=1000)
    yield Case("7.1.4", (close(1000) + frame(*hello),), close=1000)
    begun = frame(TEXT, b"fragment1", fin=False)
    yield Case(
        "7.1.5", (begun + close(1000) + frame(CONTINUATION, b"2"),), close=1000,
        differs="websockets wants the message ended, 1002; section 5.4 lets control frames in",
    )  # fmt: skip
    long = (TEXT, b"BAsd7&jh23" * 26_214)
    yield Case("7.1.6", (frame(*long), 1, close(1000) + frame(PING)), (long,), close=1000)
    yield Case("7.3.1", (close(None),), close=1005)
    yield Case("7.3.2", (frame(CLOSE, b"a"),), close=1002)
    yield Case("7.3.3", (close(1000),), close=1000)
    yield Case("7.3.4", (close(1000, b"Hello World!"),), close=1000)
    yield Case("7.3.5", (close(1000, b"*" * 123),), close=1000)
    yield Case("7.3.6", (close(1000, b"*" * 124),), close=1002)
    yield Case("7.3.7", chop(close(1000, b"*" * 123), 1), close=1000)
    yield Case("7.5.1", (close(1000, KOSME + b"\xed\xa0\x80edited"),), close=1007)
    yield Case("7.5.2", (close(1000, KOSME[:-1]),), close=1007)
    yield Case("7.5.3", (close(1000, KOSME),), close=1000)
    valid = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014,
             3000, 3999, 4000, 4001, 4009, 4999)  # fmt: skip
    for number, code in enumerate(valid, 1):
        yield Case(f"7.7.{number}", (close(code),), close=code)
    invalid = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    for number, code in enumerate(invalid, 1):
        yield Case(f"7.9.{number}", (close(code, b"reason"),), close=1002)


def limits() -> Iterator[Case]:
    """9: long messages, many messages, and streams chopped anyhow."""
    for group, opcode in ((1, TEXT), (2, BINARY)):
        for number, size in enumerate((1 << 16, 1 << 18, MAX_MESSAGE_BYTES), 1):
            yield echo(f"9.{group}.{number}", opcode, b"*" * size)
        yield Case(f"9.{group}.4", (frame(opcode, b"*" * (MAX_MESSAGE_BYTES + 1)),), close=1009)
    whole = b"*" * (1 << 18)
    for group, opcode in ((3, TEXT), (4, BINARY)):
        for number, size in enumerate((64, 256, 1024, 4096, 16384, 65536), 1):
            in_pieces = pieces(opcode, *chop(whole, size))
            yield echo(f"9.{group}.{number}", opcode, whole, (in_pieces,))
        too_long = pieces(opcode, *[b"*" * 65536] * 17)
        yield Case(f"9.{group}.7", (too_long,), close=1009)
    for group, opcode in ((5, TEXT), (6, BINARY)):
        for number, size in enumerate((64, 127, 256, 512, 1024, 2048), 1):
            yield echo(f"9.{group}.{number}", opcode, whole, chop(frame(opcode, whole), size))
    for group, opcode in ((7, TEXT), (8, BINARY)):
        for number, size in enumerate((0, 16, 64, 256, 1024, 4096), 1):
            messages = tuple((opcode, b"%04d" % n + b"*" * size) for n in range(200))
            stream = b"".join(itertools.starmap(frame, messages))
            yield Case(f"9.{group}.{number}", chop(stream, 1461), messages)


SECTIONS = {
    "1 framing": framing,
    "2 pings and pongs": pings,
    "3 reserved bits": reserved_bits,
    "4 opcodes": opcodes,
    "5 fragmentation": fragmentation,
    "6 UTF-8": utf8,
    "7 closing": closing,
    "9 limits": limits,
}
