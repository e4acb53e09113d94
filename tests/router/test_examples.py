"""The examples do what their walk-through says."""

from __future__ import annotations

from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from router import RouterProtocol
from router.__main__ import main
from router.configuration import read, router_of
from router.errors import RouterError
from tests.router.support.serving import connected, listening

CONFIGURATION = Path(__file__).parents[2] / "examples" / "router.toml"


async def test_three_services_answer_on_localhost() -> None:
    app = router_of(read(CONFIGURATION)).app("examples")
    async with listening(app, protocol=RouterProtocol) as port, connected(port) as client:
        added = await client.ask("notes.localhost", "/", "POST", body=b"buy milk")
        assert (added.status, added.body) == (201, b'{"queued":1}')
        assert (await client.ask("notes.localhost")).body == b'["buy milk"]'
        assert (await client.ask("dispatcher.localhost:8081")).body == b'["buy milk"]'
        assert (await client.ask("echo.localhost", "/", "POST", body=b"hello")).body == b"hello"
        assert (await client.ask("notes.localhost", "/", "POST", body=bytes(10001))).status == 413
        assert b"not deployed" in (await client.ask("localhost")).body
        assert b"not found" in (await client.ask("notes.example.org")).body
        url = f"ws://echo.localhost:{port}/"
        async with connect(url, host="127.0.0.1", proxy=None) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"


def test_a_file_that_cannot_be_used_is_refused_with_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "router.toml"
    for text in ("port = ", "ports = 1", 'environment = "qa"', "[services.x.y]\nsource = 'z'"):
        wrong.write_text(text, encoding="utf-8")
        assert main([str(wrong)]) == 2
    assert "router.toml" in capsys.readouterr().err
    with pytest.raises(RouterError, match="missing"):
        read(tmp_path / "missing.toml")
