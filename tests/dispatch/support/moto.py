"""A real SQS on a free port, as ``moto_server`` serves it, which a test may stop and start."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

from dispatch.sqs_queue import Credentials, connect
from tests.support.server import free_port

START_WITHIN_S = 30
CREDENTIALS = Credentials(access_key="testing", secret_key="testing")
REGION = "us-east-1"


class Moto:
    """One server process."""

    def __init__(self) -> None:
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1"]
        self.process = subprocess.Popen(
            [*command, "-p", str(self.port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_WITHIN_S
        while time.monotonic() < deadline:
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/moto-api/", timeout=5):
                return
            time.sleep(0.02)
        raise TimeoutError(f"moto_server did not start within {START_WITHIN_S} s")

    def hold(self) -> None:
        """It stays connected and answers nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def client(self) -> Any:
        """An asynchronous client of it."""
        return connect(REGION, self.url, CREDENTIALS, connections=4, read_within_s=30.0)

    async def make_queue(self, name: str) -> str:
        """The URL of a new queue; FIFO if its name says so."""
        attributes = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
        async with self.client() as client:
            made = await client.create_queue(QueueName=name, Attributes=attributes)
        return str(made["QueueUrl"])

    async def take_all(self, url: str) -> list[dict[str, Any]]:
        """Receive and delete whatever waits, in the order received."""
        taken: list[dict[str, Any]] = []
        async with self.client() as client:
            while True:
                answer = await client.receive_message(
                    QueueUrl=url,
                    MaxNumberOfMessages=10,
                    MessageAttributeNames=["All"],
                    AttributeNames=["All"],
                )
                if not (messages := answer.get("Messages")):
                    return taken
                taken += messages
                await client.delete_message_batch(
                    QueueUrl=url,
                    Entries=[
                        {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                        for number, message in enumerate(messages)
                    ],
                )
