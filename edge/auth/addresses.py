"""Addresses: which are this machine's, which are one client's, and whom a proxy speaks for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from edge.errors import SettingError

OWN = "localhost"
NETWORK_BITS = 64
"""What a subscriber of IPv6 has at least (RFC 6177), to take as many addresses from as it likes."""


def is_own_machine(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == OWN


def client_of(address: str) -> str:
    """What failures are counted under: an IPv4 address, the network of an IPv6 one."""
    found = _parsed(address)
    if found is None:
        return address
    if isinstance(found, IPv4Address):
        return str(found)
    return str(ip_network((int(found), NETWORK_BITS), strict=False))


class Proxies:
    """The proxies whose word is taken for whom they pass on."""

    def __init__(self, networks: Sequence[str]) -> None:
        """Addresses, or networks such as ``10.0.0.0/8``. Raises ``SettingError``."""
        try:
            self._networks: list[IPv4Network | IPv6Network] = [
                ip_network(text, strict=False) for text in networks
            ]
        except ValueError as error:
            raise SettingError(
                "trusted_proxies", ", ".join(networks), f"addresses and networks: {error}"
            ) from error

    def client(self, peer: str, forwarded: Iterable[str]) -> str:
        """Who is behind ``peer``: the last address of ``X-Forwarded-For`` that is no proxy of ours.

        ``forwarded``: the header's values in their order. What stands before that address anybody
        could have written.
        """
        if not self._networks or not self._trusts(peer):
            return peer
        client = peer
        for hop in reversed([hop.strip() for value in forwarded for hop in value.split(",")]):
            if _parsed(hop) is None:
                break
            client = hop
            if not self._trusts(hop):
                break
        return client

    def _trusts(self, address: str) -> bool:
        found = _parsed(address)
        return found is not None and any(found in network for network in self._networks)


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
