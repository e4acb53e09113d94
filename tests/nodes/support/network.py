"""A network of test hosts on this machine: a network namespace each, on one bridge.

Needs root and iproute2. What it makes has names of its own and goes away with it::

    with Network() as network:
        host = network.add_host()
        subprocess.run([*host.enter, "ip", "address"])
        host.cut()   # nothing gets through in either direction, and nobody is told
        host.mend()
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from types import TracebackType
from typing import Self

FIRST_HOST = 11


def problem() -> str | None:
    """Why no network can be made here; None when one can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need the ip command: install iproute2"
    return None


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Host:
    """One namespace with one address; ``enter`` in front of a command runs it there."""

    def __init__(self, namespace: str, link: str, address: str) -> None:
        self.namespace = namespace
        self.address = address
        self.enter = ("ip", "netns", "exec", namespace)
        self._link = link

    def cut(self) -> None:
        """Pull the cable: packets vanish, connections stay until somebody's patience ends."""
        ip("link", "set", self._link, "down")

    def mend(self) -> None:
        ip("link", "set", self._link, "up")


class Network:
    """A bridge of 10.213.N.0/24; this process is its host 1, at ``address``."""

    def __init__(self) -> None:
        number = random.randrange(1, 255)
        self.name = f"es{os.getpid() % 100_000}-{number}"
        self._prefix = f"10.213.{number}"
        self.address = f"{self._prefix}.1"
        self._hosts: list[Host] = []

    def __enter__(self) -> Self:
        ip("link", "add", self.name, "type", "bridge")
        try:
            ip("address", "add", f"{self.address}/24", "dev", self.name)
            ip("link", "set", self.name, "up")
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._remove()

    def add_host(self) -> Host:
        """A further host, connected."""
        number = FIRST_HOST + len(self._hosts)
        namespace, link = f"{self.name}-{number}", f"{self.name}{number}"[-15:]
        host = Host(namespace, link, f"{self._prefix}.{number}")
        self._hosts.append(host)
        ip("netns", "add", namespace)
        ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        ip("link", "set", link, "master", self.name, "up")
        inside = ("-n", namespace)
        ip(*inside, "address", "add", f"{host.address}/24", "dev", "eth0")
        ip(*inside, "link", "set", "eth0", "up")
        ip(*inside, "link", "set", "lo", "up")
        return host

    def _remove(self) -> None:
        for host in self._hosts:
            subprocess.run(["ip", "netns", "delete", host.namespace], capture_output=True)
        subprocess.run(["ip", "link", "delete", self.name], capture_output=True)
