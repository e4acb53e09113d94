"""A cluster that stands in for the one server of other tests, which do not notice.

With ``BEHIND`` in the environment ``tests.support.server.running`` gives what ``behind`` gives: two
nodes of two workers on hosts of their own, one store, and the address of a naive balancer.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from tests.nodes.support.cluster import BALANCER, Cluster, running_cluster
from tests.nodes.support.network import Network
from tests.support.server import REPOSITORY, Server, clean_environment, free_port

LOCAL = re.compile(r"127\.0\.0\.1:(\d+)")


class Front(Server):
    """What those tests use of a server: where it is, and answers to requests."""

    def __init__(self, cluster: Cluster) -> None:
        self.host, _, port = cluster.address.partition(":")
        self.port = int(port)
        self._cluster = cluster

    @property
    def log(self) -> str:
        return "".join(node.server.log for node in self._cluster.nodes)

    def workers(self) -> list[int]:
        return [pid for node in self._cluster.nodes for pid in node.server.workers()]


@contextmanager
def behind(environment: Mapping[str, str]) -> Iterator[Server]:
    """Services that listen on this machine only are reached from the nodes through a relay."""
    with ExitStack() as stack:
        network = stack.enter_context(Network())
        settings = {
            name: LOCAL.sub(lambda found: relay(stack, network, found[1]), value)
            for name, value in environment.items()
        }
        cluster = stack.enter_context(running_cluster(2, 2, network=network, environment=settings))
        yield Front(cluster)


def relay(stack: ExitStack, network: Network, port: str) -> str:
    """An address on the network for a port of this machine's own."""
    at = str(free_port())
    process = stack.enter_context(
        subprocess.Popen(
            [sys.executable, "-m", BALANCER, network.address, at, f"127.0.0.1:{port}"],
            cwd=REPOSITORY,
            env=clean_environment(),
            stdout=subprocess.PIPE,
        )
    )
    stack.callback(process.kill)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return f"{network.address}:{at}"
