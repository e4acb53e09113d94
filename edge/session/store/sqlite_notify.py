"""Wake-ups between the workers of one machine: a datagram socket each, in a folder they share.

Comes in: signals, from the writer's thread or the event loop. Goes out: the same signals in all
other workers. News of a log that find a full queue (ten datagrams, on many systems) are sent again
in a moment, newest only; something passing is dropped. Whoever must not miss one also looks at the
database now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from edge.session.store.interface import Signal

RECEIVE_BYTES = 1 << 20
MAX_READ_AT_ONCE = 256
LARGEST_BYTES = 131072
SIGNALS_AT_ONCE = 200
AGAIN_S = 0.004
LONGEST_AGAIN_S = 0.25
MAX_OWED = 10_000

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Signal]).decode


class Notifier:
    """This worker's ear and mouth in the folder; ``send`` may be called from any thread."""

    def __init__(self, folder: Path, heard: Callable[[Signal], None]) -> None:
        self._folder = folder
        self._heard = heard
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._peers: tuple[int, list[str]] = (-1, [])
        self._directory = -1
        self._owed: dict[str, dict[str, Signal]] = {}
        self._speaking = threading.Lock()
        self._again: asyncio.TimerHandle | None = None
        self._again_s = AGAIN_S

    def open(self) -> None:
        """Become reachable; ``OSError`` when the folder cannot be written."""
        self._loop = asyncio.get_running_loop()
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._folder.mkdir(exist_ok=True)
        self._directory = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        self._ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        self._ear.setblocking(False)
        self._ear.bind(self._address(self._name))
        self._loop.add_reader(self._ear, self._readable)

    def close(self) -> None:
        self._loop.remove_reader(self._ear)
        if self._again is not None:
            self._again.cancel()
        with self._speaking:
            with contextlib.suppress(OSError):
                (self._folder / self._name).unlink()
            os.close(self._directory)
            self._directory = -1
            self._ear.close()

    def send(self, signals: Sequence[Signal]) -> None:
        """Tell every other worker; those that died are forgotten."""
        with self._speaking:
            if self._directory < 0:
                return
            try:
                peers = self._living()
            except OSError:
                return
            for start in range(0, len(signals), SIGNALS_AT_ONCE):
                some = signals[start : start + SIGNALS_AT_ONCE]
                datagram = _encode(some) if peers else b""
                for peer in peers:
                    if peer in self._owed or not self._tell(peer, datagram):
                        self._owe(peer, some)

    def _tell(self, peer: str, datagram: bytes) -> bool:
        """False when its queue is full."""
        try:
            self._ear.sendto(datagram, socket.MSG_DONTWAIT, self._address(peer))
        except BlockingIOError:
            return False
        except OSError:
            with contextlib.suppress(OSError):
                (self._folder / peer).unlink()
        return True

    def _owe(self, peer: str, signals: Sequence[Signal]) -> None:
        owed = self._owed.setdefault(peer, {})
        for signal in signals:
            if not signal.body and len(owed) < MAX_OWED:
                owed[signal.session] = signal
        if not owed:
            del self._owed[peer]
        elif self._again is None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._soon)

    def _soon(self) -> None:
        if self._again is None:
            self._again = self._loop.call_later(self._again_s, self._settle)

    def _settle(self) -> None:
        """On the loop: tell what is owed, as far as the queues go."""
        self._again = None
        self._again_s = min(self._again_s * 2, LONGEST_AGAIN_S)
        with self._speaking:
            if self._directory < 0:
                return
            for peer, owed in list(self._owed.items()):
                while owed:
                    some = list(owed)[:SIGNALS_AT_ONCE]
                    if not self._tell(peer, _encode([owed[session] for session in some])):
                        break
                    self._again_s = AGAIN_S
                    for session in some:
                        del owed[session]
                if not owed:
                    del self._owed[peer]
            if self._owed:
                self._soon()
            else:
                self._again_s = AGAIN_S

    def _living(self) -> list[str]:
        """The other sockets in the folder, listed again when it changed."""
        changed_ns = os.stat(self._folder).st_mtime_ns
        if self._peers[0] != changed_ns:
            self._peers = (
                changed_ns,
                [name for name in os.listdir(self._folder) if name != self._name],
            )
        return self._peers[1]

    def _address(self, name: str) -> str:
        """A path to the socket that is short however deep the folder lies."""
        return f"/proc/self/fd/{self._directory}/{name}"

    def _readable(self) -> None:
        for _ in range(MAX_READ_AT_ONCE):
            try:
                datagram = self._ear.recv(LARGEST_BYTES)
            except OSError:
                return
            with contextlib.suppress(msgspec.MsgspecError):
                for signal in _decode(datagram):
                    self._heard(signal)
