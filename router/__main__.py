"""``python -m router FILE``: serve the namespaces of a TOML file on one port, in one process."""

from __future__ import annotations

import sys
from pathlib import Path

from router.configuration import read, router_of
from router.errors import RouterError
from router.front import RouterProtocol


def main(words: list[str]) -> int:
    """Serve until stopped; the exit status."""
    if len(words) != 1:
        print("usage: python -m router FILE", file=sys.stderr)
        return 2
    try:
        settings = read(Path(words[0]))
        app = router_of(settings).app()
    except RouterError as error:
        print(error, file=sys.stderr)
        return 2
    app.run(
        host=settings.host,
        port=settings.port,
        single_process=True,
        access_log=False,
        protocol=RouterProtocol,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
