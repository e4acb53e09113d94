"""A gateway without authentication serves its own machine only, unless somebody says otherwise."""

from __future__ import annotations

from pathlib import Path

from edge.auth.addresses import Proxies, is_own_machine
from edge.auth.keys import Keys
from edge.auth.settings import AuthSettings
from edge.auth.tokens import Tokens
from edge.errors import SettingError

KEYS_FILE = "keys.json"


def keys_path(settings: AuthSettings, data_dir: Path) -> Path:
    """Where the keys of a gateway are."""
    return settings.keys_file or data_dir / KEYS_FILE


def is_configured(settings: AuthSettings, data_dir: Path) -> bool:
    """Whether anybody has to show anything; raises ``SettingError``."""
    return (
        bool(settings.room_secret)
        or Tokens(settings).any
        or Keys(keys_path(settings, data_dir), settings.api_keys).any
    )


def check_exposure(host: str, settings: AuthSettings, data_dir: Path) -> None:
    """Raises ``SettingError`` for a gateway that everybody could use, or that trusts nonsense."""
    Proxies(settings.trusted_proxies)
    if settings.insecure or is_own_machine(host) or is_configured(settings, data_dir):
        return
    raise SettingError(
        "host",
        host,
        "other machines could use this gateway without a key: make one with 'edgescribe keys add', "
        "or say --insecure if something in front of it authenticates (docs/security.md)",
    )
