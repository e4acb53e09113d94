"""Wake-ups between the workers of one machine: a datagram socket each, in a folder they share.

Comes in: signals, from the writer's thread or the event loop. Goes out: the same signals in all
other workers. A datagram that finds a full queue is dropped; whoever must not miss one also looks
at the database now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from edge.session.store.interface import Signal

RECEIVE_BYTES = 1 << 20
MAX_READ_AT_ONCE = 256
LARGEST_BYTES = 65536

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Signal).decode


class Notifier:
    """This worker's ear and mouth in the folder; ``send`` may be called from any thread."""

    def __init__(self, folder: Path, heard: Callable[[Signal], None]) -> None:
        self._folder = folder
        self._heard = heard
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._peers: tuple[int, list[str]] = (-1, [])
        self._directory = -1

    def open(self) -> None:
        """Become reachable; ``OSError`` when the folder cannot be written."""
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._folder.mkdir(exist_ok=True)
        self._directory = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        self._ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        self._ear.setblocking(False)
        self._ear.bind(self._address(self._name))
        asyncio.get_running_loop().add_reader(self._ear, self._readable)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._ear)
        with contextlib.suppress(OSError):
            (self._folder / self._name).unlink()
        os.close(self._directory)
        self._ear.close()

    def send(self, signals: Iterable[Signal]) -> None:
        """Tell every other worker; those that died are forgotten."""
        if not (peers := self._living()):
            return
        datagrams = [_encode(signal) for signal in signals]
        for peer in peers:
            try:
                for datagram in datagrams:
                    self._ear.sendto(datagram, socket.MSG_DONTWAIT, self._address(peer))
            except BlockingIOError:
                continue
            except OSError:
                with contextlib.suppress(OSError):
                    (self._folder / peer).unlink()

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
                self._heard(_decode(datagram))
