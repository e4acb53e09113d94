"""A gateway without authentication serves its own machine only, unless somebody says otherwise."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from edge.auth.guard import is_configured
from edge.auth.settings import AuthSettings
from edge.errors import SettingError

OWN = "localhost"


def is_own_machine(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == OWN


def check_exposure(host: str, settings: AuthSettings, data_dir: Path) -> None:
    """Raises ``SettingError`` for a gateway that everybody could use."""
    if settings.insecure or is_own_machine(host) or is_configured(settings, data_dir):
        return
    raise SettingError(
        "host",
        host,
        "other machines could use this gateway without a key: make one with 'edgescribe keys add', "
        "or say --insecure if something in front of it authenticates (docs/security.md)",
    )
