"""``edgescribe keys``: make, list and take back the keys of a gateway; it follows at once."""

from __future__ import annotations

import argparse
import time

from edge.auth.exposure import keys_path
from edge.auth.grants import Allowance, parse_scopes
from edge.auth.keys import StoredKey, new_key, read, write
from edge.auth.rooms import room_token
from edge.cli.arguments import add_settings, load_settings, number
from edge.errors import SettingError
from edge.settings import Settings

DAY_S = 86400
LIMITS = {
    "connections": "WebSockets open in a worker",
    "tracks": "tracks open in a worker",
    "requests-per-s": "HTTP requests a second in a worker",
    "audio-s-per-day": "seconds of audio a day",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, with which key."""
    parser.add_argument("action", choices=("add", "list", "remove", "room"))
    parser.add_argument(
        "name",
        nargs="?",
        help="add: for logs; remove: the key's id; room: the session that the token is for",
    )
    parser.add_argument(
        "--scopes",
        default="ingest+read",
        help="of ingest, read, admin, deploy (default: %(default)s)",
    )
    parser.add_argument("--days", type=number(float, 0.001, 36500), help="how long it is good")
    parser.add_argument("--session", help="the one session that it is good for")
    for limit, what in LIMITS.items():
        parser.add_argument(
            f"--{limit}", type=number(int, 1, 1 << 53), metavar="N", default=0, help=what
        )
    add_settings(parser, names=("data_dir",))


def run(arguments: argparse.Namespace) -> int:
    """Do it; a new key is printed once and never again."""
    settings = load_settings(arguments).settings
    if arguments.action == "list":
        _list(settings)
        return 0
    if not arguments.name:
        raise SettingError("arguments", arguments.action, "give a NAME")
    if arguments.action == "add":
        _add(arguments, settings)
    elif arguments.action == "remove":
        _remove(arguments.name, settings)
    else:
        if not settings.auth.room_secret:
            raise SettingError("room_secret", "", "room tokens are made with the gateway's secret")
        print(room_token(settings.auth.room_secret, arguments.name))
    return 0


def _add(arguments: argparse.Namespace, settings: Settings) -> None:
    try:
        scopes = parse_scopes(arguments.scopes)
    except ValueError as error:
        raise SettingError("--scopes", arguments.scopes, str(error)) from error
    key, kept = new_key(
        arguments.name,
        scopes,
        expires_unix_s=int(time.time() + arguments.days * DAY_S) if arguments.days else 0,
        session=arguments.session,
        allowance=Allowance(
            connections=int(arguments.connections),
            tracks=int(arguments.tracks),
            requests_per_s=int(arguments.requests_per_s),
            audio_s_per_day=int(arguments.audio_s_per_day),
        ),
    )
    path = keys_path(settings.auth, settings.server.data_dir)
    write(path, [*read(path), kept])
    print(key)


def _remove(id: str, settings: Settings) -> None:
    path = keys_path(settings.auth, settings.server.data_dir)
    keys = read(path)
    kept = [key for key in keys if key.id != id]
    if len(kept) == len(keys):
        raise SettingError("arguments", id, "there is no key of this id; see edgescribe keys list")
    write(path, kept)


def _list(settings: Settings) -> None:
    for key in read(keys_path(settings.auth, settings.server.data_dir)):
        print(_line(key))


def _line(key: StoredKey) -> str:
    parts = [key.id, key.name, "+".join(key.scopes)]
    if key.session is not None:
        parts.append(f"session {key.session}")
    if key.expires_unix_s:
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(key.expires_unix_s))
        parts.append(f"until {ends}" if key.expires_unix_s > time.time() else f"over since {ends}")
    return "  ".join(parts)
