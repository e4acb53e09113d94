"""Two or more nodes, one store and a naive balancer, each on a host of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.nodes.support.network import Host, Network
from tests.session.store.support.valkey import Valkey
from tests.support.server import QUIET_RECOGNIZER, REPOSITORY, Server, clean_environment, free_port

BALANCER = "tests.nodes.support.balancer"


class Node:
    """One gateway on one host; ``start`` again after ``server`` has died."""

    def __init__(
        self, host: Host, folder: Path, arguments: tuple[str, ...], environment: Mapping[str, str]
    ) -> None:
        self.host = host
        self._folder = folder
        self._arguments = arguments
        self._environment = environment
        self._lives = 0
        self._port = free_port()
        self.server = self.start()

    def start(self) -> Server:
        """A fresh process on the same address; wait for it with ``server.wait_ready``."""
        self._lives += 1
        folder = self._folder / f"life-{self._lives}"
        folder.mkdir(parents=True)
        self.server = Server(
            self._arguments,
            self._environment,
            folder,
            host=self.host.address,
            port=self._port,
            prefix=self.host.enter,
        )
        return self.server


class Cluster:
    """What a test may kill, stop, cut off and start again."""

    def __init__(
        self, network: Network, store: Valkey, store_host: Host, nodes: list[Node]
    ) -> None:
        self.network = network
        self.store = store
        self.store_host = store_host
        self.nodes = nodes
        self.port = free_port()
        self.address = f"{network.address}:{self.port}"
        """Where the balancer listens."""

    def balance(self) -> subprocess.Popen[bytes]:
        addresses = [node.server.address for node in self.nodes]
        arguments = (self.network.address, str(self.port), *addresses)
        process = subprocess.Popen(
            [sys.executable, "-m", BALANCER, *arguments],
            cwd=REPOSITORY,
            env=clean_environment(),
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process


@contextmanager
def running_cluster(
    nodes: int = 2,
    workers: int = 2,
    *,
    network: Network | None = None,
    environment: Mapping[str, str] | None = None,
    store_options: tuple[str, ...] = (),
) -> Iterator[Cluster]:
    """All of it, ready; nothing of it is left at the end of the block."""
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="edgescribe-test-", ignore_cleanup_errors=True)
            )
        )
        network = network or stack.enter_context(Network())
        store_host = network.add_host()
        (folder / "store").mkdir()
        store = Valkey(
            folder / "store",
            *("--protected-mode", "no"),
            *store_options,
            host=store_host.address,
            prefix=store_host.enter,
        )
        stack.callback(store.kill)
        store.start()
        changes = {**(QUIET_RECOGNIZER if environment is None else environment)}
        changes["EDGESCRIBE_STORE"] = store.url
        arguments = ("--workers", str(workers))
        running = []
        for number in range(nodes):
            host = network.add_host()
            node = Node(host, folder / f"node-{number}", arguments, changes)
            stack.callback(lambda node=node: node.server.kill())
            running.append(node)
        for node in running:
            node.server.wait_ready()
        cluster = Cluster(network, store, store_host, running)
        stack.callback(stack.enter_context(cluster.balance()).kill)
        yield cluster
