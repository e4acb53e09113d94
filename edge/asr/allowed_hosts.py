"""Which hosts a client may send this gateway to, and where they are.

Comes in: the operator's list, and the host of a client's URL. Goes out: the entry that allows it,
and addresses to connect to. A host is looked up once and the connection made to the address that
was checked, so that a name cannot point elsewhere a moment later (DNS rebinding). Only recognizers
call it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from edge.errors import RecognizerRefused, SettingError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_UNICAST = ip_network("2000::/3")
"""All IPv6 addresses of the public Internet (RFC 4291 section 2.4 and IANA's registry)."""
_TRANSLATED = ip_network("64:ff9b::/96")
"""IPv4 addresses as IPv6 networks see them (RFC 6052)."""


class AllowedHosts:
    """An operator's list of names, addresses and networks.

    A name or an address is a host that may stand in a URL. Addresses that are not public (loopback,
    link-local, private and the like) are only connected to if they, or their network, are listed
    too, whatever name led there.
    """

    def __init__(self, setting: str, entries: Sequence[str]) -> None:
        """Raises ``SettingError`` for an entry that is neither."""
        self._setting = setting
        self._names: set[str] = set()
        self._networks: list[Network] = []
        for entry in entries:
            network = _network(entry)
            if network is not None:
                self._networks.append(network)
            elif _is_name(entry):
                self._names.add(_plain(entry))
            else:
                raise SettingError(
                    setting, entry, "hosts are names, addresses or networks, without a port"
                )

    def __bool__(self) -> bool:
        return bool(self._names or self._networks)

    def entry_of(self, host: str) -> str | None:
        """The entry that allows a URL's host, or None; there are only so many of them."""
        address = _address(host)
        if address is None:
            name = _plain(host)
            return name if name in self._names else None
        network = self._network_of(address)
        return None if network is None else str(network)

    async def addresses(self, host: str, port: int) -> list[str]:
        """Where a host may be reached, best first.

        Raises ``RecognizerRefused`` if none of its addresses is allowed, ``OSError`` if it has
        none. The caller sets the deadline.
        """
        found = await look_up(host, port)
        allowed = [text for text in found if self._may_connect(ip_address(text))]
        if not allowed:
            raise RecognizerRefused(
                f"the address of {host} is not public, and not in {self._setting}"
            )
        return allowed

    def _may_connect(self, address: Address) -> bool:
        return is_public(address) or self._network_of(address) is not None

    def _network_of(self, address: Address) -> Network | None:
        own = _unwrapped(address)
        return next((network for network in self._networks if own in network), None)


async def look_up(host: str, port: int) -> list[str]:
    """The addresses of a host as the system has them; raises ``OSError``."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))


def is_public(address: Address) -> bool:
    """Whether an address, and any that is written inside it, belongs to the public Internet."""
    own = _unwrapped(address)
    if isinstance(own, IPv6Address):
        if own.sixtofour is not None and not is_public(own.sixtofour):
            return False
        if own.teredo is not None and not all(map(is_public, own.teredo)):
            return False
        if own in _TRANSLATED:
            return is_public(IPv4Address(int(own) & 0xFFFFFFFF))
        if own not in _UNICAST:
            return False
    return own.is_global and not own.is_multicast


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 one only wraps (``::ffff:…``), else the address."""
    return getattr(address, "ipv4_mapped", None) or address


def _address(host: str) -> Address | None:
    try:
        return _unwrapped(ip_address(host))
    except ValueError:
        return None


def _network(entry: str) -> Network | None:
    try:
        return ip_network(entry.strip().strip("[]"), strict=False)
    except ValueError:
        return None


def _plain(name: str) -> str:
    """A name as it compares: lower case, international letters as DNS has them, no final dot."""
    name = name.strip().lower().removesuffix(".")
    try:
        return name.encode("idna").decode() if name else name
    except UnicodeError:
        return name


def _is_name(entry: str) -> bool:
    labels = _plain(entry).split(".")
    return all(label and label.isascii() and label.replace("-", "a").isalnum() for label in labels)
