"""Where loads run: a gateway on cores of its own, a stand-in for its recognizers on another."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import islice
from pathlib import Path

import msgspec
import trustme

from bench.load_client import LoadClient
from edge.demo.bridge import Line, encode_frames
from edge.demo.gateway import HOST, GatewayProcess, running
from edge.demo.speech import demo_recordings, read_wav

LOOP_PACKETS = 200
PROVIDERS = ("openai", "deepgram", "deepgram-pcm", "dummy", "embedded")
UNLIMITED = str(10**9)


class BedOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is set up."""

    provider: str = "openai"
    """One of ``PROVIDERS``; ``deepgram`` is handed Opus, ``deepgram-pcm`` is not."""
    workers: int = 1
    tls: bool = False
    loss: float = 0.0
    """Share of packets."""
    at_any_pace: bool = False
    """Whether connections may send as fast as they can."""

    @property
    def recognizer(self) -> str:
        """The gateway's name of ``provider``."""
        return self.provider.partition("-")[0]

    @property
    def query(self) -> str:
        """Of the media endpoint."""
        return f"sendBack=true&sendBackInterim=true&times=true&provider={self.recognizer}"


class Bed:
    """A running gateway, its stand-in, and what to send."""

    def __init__(
        self,
        options: BedOptions,
        gateway: GatewayProcess,
        upstream: StandIn,
        packets: list[bytes],
        trust: ssl.SSLContext | None,
        core: int,
    ) -> None:
        self.options = options
        self.gateway = gateway
        self.upstream = upstream
        self.packets = packets
        self.core = core
        """One of the gateway's."""
        self._trust = trust
        self.workers = [pid for pid in gateway.pids() if is_worker(pid)]
        """Their process ids."""

    def client(self) -> LoadClient:
        """A bridge without sessions."""
        return LoadClient(self.gateway.port, self.packets, tls=self._trust, loss=self.options.loss)

    async def warm_up(self, seconds: float) -> None:
        """Carry sessions for so long, so that what is loaded once is charged to no stream."""
        count = self.options.workers
        client = self.client()
        await client.open([5] * (1 if count == 1 else 4 * count), self.options.query)
        await client.stream(seconds)
        await client.close()


@asynccontextmanager
async def bed(options: BedOptions) -> AsyncIterator[Bed]:
    """A gateway that is ready, for the length of the block."""
    allowed = sorted(os.sched_getaffinity(0))
    gateway_cores, other_core = allowed[-options.workers :], allowed[0]
    packets = speech_packets(with_redundancy=options.loss > 0)
    with (
        tempfile.TemporaryDirectory(prefix="edgescribe-load-") as folder,
        stand_in(other_core) as upstream,
    ):
        arguments: list[str] = []
        trust = None
        if options.tls:
            arguments, trust = _certificate(Path(folder))
        os.sched_setaffinity(0, gateway_cores)
        try:
            async with running(
                workers=options.workers,
                arguments=arguments,
                environment={**os.environ, **_environment(options, upstream.port)},
                trust=trust,
            ) as gateway:
                pin_all(os.getpid(), other_core)
                yield Bed(options, gateway, upstream, packets, trust, gateway_cores[-1])
        finally:
            os.sched_setaffinity(0, allowed)


def _environment(options: BedOptions, upstream_port: int) -> dict[str, str]:
    services = f"ws://{HOST}:{upstream_port}"
    deepgram = {"DEEPGRAM_API_KEY": "bench", "DEEPGRAM_URL": services}
    environment = {
        "openai": {"OPENAI_API_KEY": "bench", "OPENAI_REALTIME_URL": f"{services}/v1/realtime"},
        "deepgram": {**deepgram, "DEEPGRAM_ENCODING": "opus"},
        "deepgram-pcm": {**deepgram, "DEEPGRAM_ENCODING": "linear16"},
        "dummy": {"ENABLE_DUMMY_PROVIDER": "true"},
    }.get(options.provider, {})
    # Whatever else could be used is not even started.
    environment["PROVIDERS_PRIORITY"] = options.recognizer
    if options.at_any_pace:
        environment["EDGESCRIBE_MAX_EVENTS_PER_S"] = UNLIMITED
    return environment


def _certificate(folder: Path) -> tuple[list[str], ssl.SSLContext]:
    """Arguments of a gateway with a certificate of its own, and who trusts it."""
    authority = trustme.CA()
    leaf = authority.issue_cert(HOST)
    leaf.private_key_and_cert_chain_pem.write_to_path(str(folder / "gateway.pem"))
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    path = folder / "gateway.pem"
    return ["--set", f"tls_cert={path}", "--set", f"tls_key={path}"], trust


def speech_packets(*, with_redundancy: bool) -> list[bytes]:
    """Four seconds of speech at 32 kbit/s, from 1.3 s on, when the first sentence begins."""
    frames = encode_frames(
        read_wav(demo_recordings()[0].path), Line(fec=with_redundancy, dtx=False)
    )
    return [payload for payload, _ in islice(frames, 65, 65 + LOOP_PACKETS)]


def is_worker(pid: int) -> bool:
    """Whether Sanic started this process to serve connections."""
    return b"SANIC_WORKER_NAME=Sanic-Server" in Path(f"/proc/{pid}/environ").read_bytes()


def pin_all(pid: int, core: int) -> None:
    """Keep all threads of a process on one core."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def pss_kb(pid: int) -> int:
    """A process's share of the memory it maps, in kB, but for the pages of files.

    Those are code; its share of them rises and falls with any other process that maps the same
    libraries, by megabytes when some Python somewhere ends.
    """
    sizes_kb = {
        name: int(size.split()[0])
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        for name, _, size in [line.partition(":")]
    }
    return sizes_kb["Pss"] - sizes_kb.get("Pss_File", 0)


def waited_s(pid: int) -> float:
    """Seconds for which a process's main thread could have run and had no core; 0 if not known."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def descriptors(pid: int) -> list[str]:
    """What each open file descriptor of a process refers to, as the kernel names it."""
    targets = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            targets.append(os.readlink(link))
        except FileNotFoundError:
            continue
    return sorted(targets)


def threads(pid: int) -> int:
    """How many threads a process has."""
    return len(os.listdir(f"/proc/{pid}/task"))


class StandIn:
    """The process of ``bench.load_upstream``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.port = int(process.stdout.readline())

    def connections(self) -> tuple[int, int]:
        """How many connections there have been, and how many are open."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        opened, still_open = self._process.stdout.readline().split()
        return int(opened), int(still_open)


@contextmanager
def stand_in(core: int) -> Iterator[StandIn]:
    """The stand-in for the recognizer, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.load_upstream"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    try:
        upstream = StandIn(process)
        pin_all(process.pid, core)
        yield upstream
    finally:
        process.terminate()
        process.communicate()
