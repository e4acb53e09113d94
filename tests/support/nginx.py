"""A real nginx in front of servers, one process without a master, all its files in one folder."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

WITHIN_S = 10.0
UNPACKED = Path(sys.prefix) / "nginx/usr/sbin/nginx"
"""Where tools/nginx.sh leaves it."""

CONFIGURATION = """
daemon off;
master_process off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_max_body_size 0;
    keepalive_requests 1000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {servers}
}}
"""
SERVER = """
    upstream behind{behind} {{
        server 127.0.0.1:{behind};
        keepalive 16;
        keepalive_requests 1000000;
    }}
    server {{
        listen 127.0.0.1:{front};
        merge_slashes off;
        location / {{
            proxy_pass http://behind{behind};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_request_buffering off;
        }}
    }}
"""


def nginx() -> str | None:
    """The program; None where there is none."""
    return shutil.which("nginx") or (str(UNPACKED) if UNPACKED.exists() else None)


@contextmanager
def in_front(ports: Mapping[int, int], folder: Path) -> Iterator[int]:
    """Proxies each port to another; gives nginx's process id."""
    program = nginx()
    assert program is not None, "there is no nginx here"
    servers = "".join(SERVER.format(front=front, behind=back) for front, back in ports.items())
    file = folder / "nginx.conf"
    file.write_text(CONFIGURATION.format(folder=folder, servers=servers), encoding="utf-8")
    command = [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(file)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            for port in ports:
                _wait_for(port, process, folder)
            yield process.pid
        finally:
            process.terminate()


def _wait_for(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    until_s = time.monotonic() + WITHIN_S
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > until_s:
            told = (folder / "error.log").read_text(errors="replace")
            raise AssertionError(f"nginx does not listen on {port}: {told}")
        time.sleep(0.01)
