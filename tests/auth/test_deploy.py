"""Behind the router: who may change its services, and that the gateway asks as it does alone."""

from __future__ import annotations

from pathlib import Path

from tests.support.server import QUIET_RECOGNIZER, running

FILE = """
environment = "development"
admin_host = "localhost"
admin_prefix = "/admin"

[table]
zones = ["localhost"]
allow_loopback = true
gateway_hosts = ["127.0.0.1"]
"""
DEPLOYER = "deploys-0123456789"
READER = "reads-0123456789"


def test_a_key_with_the_scope_deploy_opens_the_deploy_api(tmp_path: Path) -> None:
    file = tmp_path / "router.toml"
    file.write_text(FILE, encoding="utf-8")
    environment = {
        **QUIET_RECOGNIZER,
        "EDGESCRIBE_ROUTER_FILE": str(file),
        "EDGESCRIBE_API_KEYS": f"{DEPLOYER}:deploy,{READER}:read",
    }
    with running("--workers", "1", environment=environment) as server:

        def ask(path: str, key: str, host: str = "localhost") -> int:
            headers = {"Host": host, "Authorization": f"Bearer {key}"}
            return server.get(path, headers=headers).status

        assert ask("/admin/services", DEPLOYER) == 200
        for wrong in (READER, "", "nobody-0123456789"):
            assert ask("/admin/services", wrong) == 401, wrong
        assert ask("/v1/sessions", READER, "127.0.0.1") == 200
        assert ask("/v1/sessions", DEPLOYER, "127.0.0.1") == 403
        for path in ("/console/../v1/sessions", "/v1/../v1/sessions", "//v1/sessions"):
            assert ask(path, "", "127.0.0.1") in (400, 401, 404, 426), path
        assert DEPLOYER not in server.log and READER not in server.log
