"""A real SeaweedFS with its S3 door on free ports, which a test may kill, stop and start again."""

from __future__ import annotations

import itertools
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import get_session

from edge.objects.settings import ObjectSettings
from tests.support.server import free_port

START_WITHIN_S = 30.0
LOOK_S = 0.05
ACCESS_KEY = "AKIDOFTHETEST"
BUCKET = "recordings"
SECRET_KEY = "a-secret-of-the-test-0123456789"
READER_KEY = "AKIDOFAREADER"
ACTIONS = ["Admin", "Read", "Write", "List", "Tagging"]
IDENTITIES = {
    "identities": [
        {
            "name": name,
            "credentials": [{"accessKey": access, "secretKey": SECRET_KEY}],
            "actions": actions,
        }
        for name, access, actions in (
            ("test", ACCESS_KEY, ACTIONS),
            ("reader", READER_KEY, ["Read", "List"]),
        )
    ]
}

_folders = itertools.count()


class Seaweed:
    """One server process in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        names = ("master", "volume", "filer")
        ports = {f"-{name}.port{kind}": free_port() for name in names for kind in ("", ".grpc")}
        self.options = [f"{name}={port}" for name, port in ports.items()]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def settings(self, **others: object) -> ObjectSettings:
        """How a gateway reaches this server, with a folder of its own in the bucket."""
        given = {
            "objects": f"s3://{BUCKET}/gateway-{next(_folders)}",
            # One disk and two cores carry the server, and other tests at the same time.
            "objects_deadline_s": 20.0,
            "s3_endpoint": self.endpoint,
            "s3_access_key": ACCESS_KEY,
            "s3_secret_key": SECRET_KEY,
        }
        return ObjectSettings(**{**given, **others})  # type: ignore[arg-type]

    def start(self) -> None:
        """Start, or start again on the same ports with the same objects."""
        identities = self.folder / "identities.json"
        identities.write_bytes(msgspec.json.encode(IDENTITIES))
        weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or "weed"
        command = [
            *(weed, "server", f"-dir={self.folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *("-master.volumeSizeLimitMB=64", "-volume.max=20", "-master.telemetry=false"),
            *("-master.electionTimeout=1s", "-filer", "-s3", f"-s3.config={identities}"),
            *(f"-s3.port={self.port}", f"-s3.port.grpc={free_port()}"),
            # Doors that have fixed ports.
            *("-s3.port.iceberg=0", "-s3.port.lance=0"),
            *self.options,
        ]
        log = (self.folder / "log").open("ab")
        with log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until = time.monotonic() + START_WITHIN_S
        while not self._answers():
            assert self.process.poll() is None and time.monotonic() < until, self._said()
            time.sleep(LOOK_S)

    def ready(self) -> None:
        """Wait until the server takes objects, into its one bucket."""
        client = get_session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(connect_timeout=2, read_timeout=2, retries={"total_max_attempts": 1}),
        )
        until = time.monotonic() + START_WITHIN_S
        while True:
            try:
                with suppress(ClientError):  # an earlier try, too late answered, made it
                    client.create_bucket(Bucket=BUCKET)
                client.put_object(Bucket=BUCKET, Key="probe", Body=b"probe")
                break
            except (BotoCoreError, ClientError):
                lives = self.process is not None and self.process.poll() is None
                assert lives and time.monotonic() < until, self._said()
                time.sleep(LOOK_S)
        client.close()

    def kill(self) -> None:
        """End it at once, as a loss of its machine would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """Let it answer nothing more, with all its connections open."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def _said(self) -> str:
        return (self.folder / "log").read_text()[-2000:]

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
            return True
        return False
