"""With a certificate the port speaks TLS only, end to end; without a usable one nothing starts."""

from __future__ import annotations

import asyncio
import datetime
import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import trustme
from websockets.asyncio.client import connect

from edge.demo.gateway import running as own_gateway
from tests.support.server import (
    HOST,
    QUIET_RECOGNIZER,
    Server,
    clean_environment,
    edgescribe,
    running,
    wait_until,
)


class Files(NamedTuple):
    """Of one gateway: its chain with an intermediate authority, its key, and the root."""

    cert: Path
    key: Path
    root: Path

    @property
    def options(self) -> tuple[str, ...]:
        return ("--tls-cert", str(self.cert), "--tls-key", str(self.key))

    @property
    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.root)


def issue(folder: Path, not_after: datetime.datetime | None = None) -> Files:
    root = trustme.CA()
    leaf = root.create_child_ca().issue_cert(HOST, "localhost", not_after=not_after)
    files = Files(folder / "chain.pem", folder / "key.pem", folder / "root.pem")
    files.cert.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(str(files.key))
    root.cert_pem.write_to_path(str(files.root))
    return files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return issue(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(files: Files) -> Iterator[Server]:
    with running("--workers", "1", *files.options, ready=False) as server:
        wait_until(lambda: "data directory" in server.output, "the lines of the start", 30)
        yield server


def test_the_lines_of_the_start_say_https_and_wss(server: Server) -> None:
    lines = server.output.splitlines()
    assert f"listens on https://{server.address} (1 worker)" in lines[0]
    assert lines[1].endswith(f"wss://{server.address}/transcribe")


def test_a_client_that_trusts_the_root_is_served(server: Server, files: Files) -> None:
    connection = http.client.HTTPSConnection(HOST, server.port, timeout=5, context=files.client)
    try:
        connection.request("GET", "/ready")
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())) == (200, {"ready": True})
    finally:
        connection.close()


def test_a_chain_without_its_intermediate_certificate_is_what_clients_refuse(
    files: Files, tmp_path: Path
) -> None:
    """So the tests beside this one prove that the whole chain is sent."""
    leaf = tmp_path / "leaf.pem"
    end = "-----END CERTIFICATE-----\n"
    leaf.write_text(files.cert.read_text().partition(end)[0] + end)
    short = Files(leaf, files.key, files.root)
    with running("--workers", "1", *short.options, ready=False) as server:
        wait_until(lambda: "data directory" in server.output, "the lines of the start", 30)
        with (
            socket.create_connection((HOST, server.port), timeout=5) as connection,
            pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"),
        ):
            short.client.wrap_socket(connection, server_hostname="localhost")


async def test_a_session_over_wss_is_answered_and_closed_cleanly(
    server: Server, files: Files
) -> None:
    address = f"wss://{server.address}/transcribe?sendBack=true"
    async with connect(address, ssl=files.client) as client:
        assert json.loads(await client.recv())["event"] == "info"
        await client.send(json.dumps({"event": "ping", "id": 7}))
        answer = json.loads(await asyncio.wait_for(client.recv(), 5))
        assert (answer["event"], answer["id"]) == ("pong", 7)
    assert client.close_code == 1000


async def test_a_message_of_many_tls_records_arrives_whole(server: Server, files: Files) -> None:
    address = f"wss://{server.address}/transcribe?sendBack=true"
    async with connect(address, ssl=files.client) as client:
        await client.recv()
        await client.send(json.dumps({"event": "unknown", "padding": "x" * 50_000}))
        await client.send(json.dumps({"event": "ping", "id": 8}))
        assert json.loads(await asyncio.wait_for(client.recv(), 5))["id"] == 8


async def test_a_stopping_gateway_closes_its_wss_clients_with_1001(files: Files) -> None:
    with running("--workers", "1", *files.options, ready=False) as server:
        wait_until(lambda: "data directory" in server.output, "the lines of the start", 30)
        async with connect(
            f"wss://{server.address}/transcribe?sendBack=true", ssl=files.client
        ) as client:
            server.process.terminate()
            await asyncio.wait_for(client.wait_closed(), 20)
            assert client.close_code == 1001
        assert await asyncio.to_thread(server.wait) == 0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken(server: Server, files: Files, version: ssl.TLSVersion) -> None:
    context = files.client
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection((HOST, server.port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as secure,
    ):
        assert secure.version() == version.name.replace("_", ".")


def test_older_tls_is_refused_by_the_server_and_not_just_by_clients(server: Server) -> None:
    hello = bytes.fromhex("16 0301 002f 01 00002b 0302") + bytes(32)
    hello += bytes.fromhex("00 0004 c013 c009 0100")
    with socket.create_connection((HOST, server.port), timeout=5) as connection:
        connection.sendall(hello)
        answer = connection.recv(64)
    assert not answer or answer[0] == 0x15, "an alert or nothing, never a server hello"


def test_plain_http_gets_nothing_from_a_tls_port(server: Server) -> None:
    try:
        answer = server.exchange(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    except ConnectionResetError:
        answer = b""
    assert b"OK" not in answer
    assert b"HTTP" not in answer


def test_probe_asks_the_gateway_of_its_settings_whatever_name_is_in_its_certificate(
    server: Server, files: Files
) -> None:
    variables = {
        "PORT": str(server.port),
        "EDGESCRIBE_HOST": "0.0.0.0",
        "EDGESCRIBE_TLS_CERT": str(files.cert),
        "EDGESCRIBE_TLS_KEY": str(files.key),
    }
    done = edgescribe("probe", "live", environment=variables)
    assert (done.returncode, done.stdout, done.stderr) == (0, "OK\n", "")


def test_probe_verifies_a_gateway_given_by_its_url(server: Server, files: Files) -> None:
    url = f"https://{server.address}"
    trusting = edgescribe("probe", "ready", url, "--cacert", str(files.root))
    assert (trusting.returncode, trusting.stdout) == (0, '{"ready":true}\n')
    doubting = edgescribe("probe", "ready", url)
    assert doubting.returncode == 1
    assert doubting.stderr.startswith(f"edgescribe: {url} cannot be asked: ")
    assert "certificate" in doubting.stderr


def test_client_commands_trust_what_openssl_is_told_to_trust(
    server: Server, files: Files, tmp_path: Path
) -> None:
    dump = tmp_path / "media.jsonl"
    dump.write_bytes(msgspec.json.encode({"timestamp": 1, "data": '{"event":"ping"}'}) + b"\n")
    address = f"wss://{server.address}"
    trusting = edgescribe(
        "replay", str(dump), address, environment={"SSL_CERT_FILE": str(files.root)}
    )
    assert (trusting.returncode, trusting.stderr) == (0, "")
    doubting = edgescribe("replay", str(dump), address)
    assert doubting.returncode == 1
    assert "certificate" in doubting.stderr and doubting.stderr.count("\n") == 1


async def test_a_gateway_that_a_command_starts_for_itself_takes_no_certificate(
    files: Files,
) -> None:
    variables = {"EDGESCRIBE_TLS_CERT": str(files.cert), "EDGESCRIBE_TLS_KEY": str(files.key)}
    environment = clean_environment({**QUIET_RECOGNIZER, **variables})
    async with (
        own_gateway(workers=1, environment=environment) as gateway,
        connect(f"ws://{gateway.address}/transcribe?sendBack=true") as client,
    ):
        assert json.loads(await client.recv())["event"] == "info"


def test_probe_names_a_cacert_it_cannot_use(tmp_path: Path, files: Files) -> None:
    for path, why in (
        (tmp_path / "absent.pem", "No such file or directory"),
        (files.key, "it must be a PEM file of certificates"),
    ):
        done = edgescribe("probe", "live", "https://localhost:1", "--cacert", str(path))
        assert done.returncode == 2
        assert done.stderr.startswith(f"edgescribe: --cacert='{path}' cannot be used: ")
        assert why in done.stderr and done.stderr.count("\n") == 1


def test_a_pair_that_cannot_work_is_one_line_before_anything_starts(
    tmp_path: Path, files: Files
) -> None:
    other = issue(tmp_path)
    encrypted = tmp_path / "encrypted.pem"
    encrypted.write_text(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    cut = tmp_path / "cut.pem"
    cut.write_bytes(files.cert.read_bytes()[:300])
    absent = tmp_path / "absent.pem"
    for cert, key, said in (
        (files.cert, None, "tls_key must be set with it"),
        (None, files.key, "tls_cert must be set with it"),
        (absent, files.key, f"tls_cert='{absent}' cannot be used: cannot read it: No such file"),
        (files.cert, absent, f"tls_key='{absent}' cannot be used: cannot read it: No such file"),
        (tmp_path, files.key, "cannot read it: Is a directory"),
        (files.key, files.key, "it must be a PEM file of certificates"),
        (files.cert, files.cert, "it must be a PEM file of a private key"),
        (files.cert, other.key, "it is not the key of the first certificate"),
        (files.cert, encrypted, "the key must not need a passphrase"),
        (cut, files.key, "OpenSSL cannot use it"),
    ):
        variables = {
            **QUIET_RECOGNIZER,
            "EDGESCRIBE_TLS_CERT": str(cert or ""),
            "EDGESCRIBE_TLS_KEY": str(key or ""),
        }
        done = edgescribe("serve", "--port", "0", environment=variables, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
        assert done.stderr.startswith("edgescribe: ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "edgescribe-data").exists()


def test_doctor_says_how_long_the_certificate_is_valid(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    lasting = issue(tmp_path, now + datetime.timedelta(days=30))
    port = ("--port", "0", "--data-dir", str(tmp_path))
    done = edgescribe("doctor", *port, *lasting.options)
    assert f"{lasting.cert} is valid until" in done.stdout
    expired = issue(tmp_path, now - datetime.timedelta(days=1))
    done = edgescribe("doctor", *port, *expired.options)
    assert done.returncode == 1
    assert "bad  certificate" in done.stdout and "expired" in done.stdout
