"""Addresses: which are this machine's, and which are one client's."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network

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
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ip_network((int(found), NETWORK_BITS), strict=False))
