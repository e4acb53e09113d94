"""Hosts and paths reach the services that the rules give them (R1 to R6)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router.decision import Decider, DecisionSettings, RequestHead
from router.errors import ConfigurationError
from router.hosts import normalise_host
from router.paths import normalise_path
from router.table import ServiceTable, TableSettings
from tests.router.vectors import VECTORS, Vector


class Shelf:
    """A namespace of names."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def find(self, service: str) -> str | None:
        return service if service in self.names else None


def decider_of(vector: Vector) -> Decider[str]:
    namespaces = {name: Shelf(vector.reg) for name in ("production", "staging", "development")}
    namespaces[vector.env.lower()] = Shelf(vector.reg)
    table = TableSettings(profile=vector.profile, zones=vector.zones)  # type: ignore[arg-type]
    decider = Decider(namespaces, DecisionSettings(environment=vector.env, table=table))
    if vector.cfgmissing or vector.env == "qa":
        del namespaces[vector.env.lower()]
    return decider


def test_there_are_all_the_vectors() -> None:
    assert len(VECTORS) == 97


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.id)
def test_vectors_on_the_decision(vector: Vector) -> None:
    hosts = [] if vector.host is None else [vector.host]
    forwarded = "db.do" if vector.id == "B43" else None
    decision = decider_of(vector).decide(
        RequestHead(vector.method, vector.target, hosts, vector.ver, forwarded, peer="192.0.2.7")
    )
    if vector.service is not None or vector.raises is not None:
        assert decision.answer is None
        assert decision.found == decision.service == (vector.service or "gateway")
    else:
        assert decision.answer is not None
        assert (decision.answer.status, decision.answer.body) == (
            vector.expect_status,
            vector.body,
        )


def ask(
    host: str | None = "db.do",
    target: str = "/",
    *,
    settings: DecisionSettings | None = None,
    **more: object,
) -> tuple[str, str]:
    """The outcome and the service for a request."""
    namespaces = {name: Shelf(["gateway", "db", "auth"]) for name in ("production", "staging")}
    decider = Decider(namespaces, settings or DecisionSettings())
    hosts = [] if host is None else [host]
    decision = decider.decide(RequestHead("GET", target, hosts, **more))  # type: ignore[arg-type]
    return decision.outcome, decision.service


@pytest.mark.parametrize(
    ("written", "normalised"),
    [
        ("DB.do:", "db.do"),
        ("db.do:000080", "db.do"),
        ("db.do:65536", None),
        ("db.do:\u0661", None),
        ("db.do:1:2", None),
        ("_dmarc.db.do", "_dmarc.db.do"),
        ("[0:0:0:0:0:0:0:1]:80", "[::1]"),
        ("[::1]x", None),
        ("[::1", None),
        ("[v1.x]", None),
        (".", None),
        (".db.do", None),
        ("a" * 64 + ".do", None),
        ("a" * 63 + ".do", "a" * 63 + ".do"),
        (".".join(["a" * 63] * 4), None),
        ("db\uff0edo", "db.do"),
        ("db.do\uff0fx.do", None),
        ("db.do\uff1a80.do", None),
        ("\u2100.do", None),
        ("db\udcff.do", None),
        ("_x.\u5f61.io", "_x.xn--82t.io"),
        ('db".do', None),
        ("db.do\x00", None),
    ],
)
def test_hosts_have_one_spelling_or_none(written: str, normalised: str | None) -> None:
    assert normalise_host(written) == normalised


def test_one_host_field_is_needed_and_an_absolute_target_replaces_it() -> None:
    assert ask(None) == ("bad_request", "")
    assert ask("auth.do", "http://db.do:81/x") == ("ok", "db")
    assert ask("auth.do", "http://db.do?x") == ("ok", "db")
    assert ask("auth.do", "http://me@db.do/x") == ("bad_request", "")
    assert ask("auth.do", "http:///x") == ("bad_request", "")
    assert ask("auth.do", "x") == ("bad_request", "")
    decider = Decider({"production": Shelf(["db"])}, DecisionSettings())
    doubled = RequestHead("GET", "/", ["db.do", "db.do"])
    assert decider.decide(doubled).outcome == "bad_request"


def test_only_trusted_proxies_tell_the_host() -> None:
    trusting = DecisionSettings(trusted_proxies=("10.0.0.0/8", "::1"))
    told = {"x_forwarded_host": "db.do, auth.do"}
    assert ask("auth.do", settings=trusting, peer="10.1.2.3", **told) == ("ok", "db")
    assert ask("auth.do", settings=trusting, peer="::ffff:10.1.2.3", **told) == ("ok", "db")
    assert ask("auth.do", settings=trusting, peer="::1", **told) == ("ok", "db")
    assert ask("auth.do", settings=trusting, peer="192.0.2.1", **told) == ("ok", "auth")
    assert ask("auth.do", settings=trusting, peer=None, **told) == ("ok", "auth")
    bad = {"x_forwarded_host": "d b.do"}
    assert ask("auth.do", settings=trusting, peer="10.1.2.3", **bad) == ("bad_request", "")
    for forwarded in ("for=1.2.3.4;host=db.do, host=auth.do", 'for="a,b";Host="db.do:80"'):
        told = {"forwarded": forwarded}
        assert ask("auth.do", settings=trusting, peer="10.1.2.3", **told) == ("ok", "db")


def test_suffixes_choose_the_environment_longest_first() -> None:
    settings = DecisionSettings(
        environment_suffixes={"*.example": "Production", "*.staging.example": "Staging"}
    )
    decider = Decider({"production": Shelf([]), "staging": Shelf([])}, settings)
    for host, name in (("db.staging.example", "Staging"), ("db.example", "Production")):
        answer = decider.decide(RequestHead("GET", "/", [host])).answer
        assert answer is not None and f"not found in {name} namespace".encode() in answer.body


@pytest.mark.parametrize(
    "settings",
    [
        DecisionSettings(environment="qa"),
        DecisionSettings(environment_suffixes={"*.qa.example": "qa"}),
        DecisionSettings(trusted_proxies=("proxy.example",)),
        DecisionSettings(table=TableSettings(zones=("a b",))),
        DecisionSettings(table=TableSettings(services=("Db",))),
    ],
)
def test_a_setting_that_cannot_be_used_refuses_the_start(settings: DecisionSettings) -> None:
    with pytest.raises(ConfigurationError):
        Decider({"production": Shelf([])}, settings)


def test_zones_bound_the_hosts_and_loopback_may_stand_beside() -> None:
    table = ServiceTable(
        TableSettings(zones=("example.org",), allow_loopback=True, gateway_hosts=("health.local",))
    )
    assert table.choose("example.org", "/") == "gateway"
    assert table.choose("api.example.org", "/") == "gateway"
    assert table.choose("db.example.org", "/") == "db"
    assert table.choose("db.evil.example", "/") is None
    assert table.choose("dbexample.org", "/api/db") is None
    assert table.choose("db.localhost", "/") == "db"
    assert table.choose("127.0.0.1", "/api/db") == "db"
    assert table.choose("[::1]", "/") is None
    assert table.choose("health.local", "/") == "gateway"
    assert table.choose("", "/api/db") is None


def test_versions_need_a_known_service_and_a_zone() -> None:
    table = ServiceTable(TableSettings(profile="v2", zones=("do",)))
    assert table.choose("v2-rc-1.db.do", "/") == "db-v2-rc-1"
    assert table.choose("v2.db.a.do", "/") is None
    assert table.choose("v2.db", "/") is None
    assert ServiceTable(TableSettings(profile="v2")).choose("v2.db", "/") is None
    assert table.family("db-v2-rc-1") == "db"


@pytest.mark.parametrize(
    ("written", "normalised"),
    [
        ("/a/%2E%2e/b", "/b"),
        ("/a/.%2e", "/"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/a//../b", "/a/b"),
        ("/a/...", "/a/..."),
        ("/a;../b", "/a;../b"),
        ("/%252e%252e/x", "/%252e%252e/x"),
        ("\\..\\x", "/x"),
    ],
)
def test_paths_have_one_spelling(written: str, normalised: str) -> None:
    assert normalise_path(written) == normalised


@given(st.text(alphabet="/.\\%2eEab;", max_size=30))
def test_a_normalised_path_stays_as_it_is(path: str) -> None:
    once = normalise_path("/" + path)
    assert normalise_path(once) == once
    segments = [segment.lower().replace("%2e", ".") for segment in once.split("/")]
    assert "." not in segments and ".." not in segments and once.startswith("/")


@given(st.text(max_size=40))
@example("xn--")
@example("xn--a.\u5f61")
@example("\u0130.do")
def test_a_normalised_host_stays_as_it_is(host: str) -> None:
    once = normalise_host(host)
    assert once is None or normalise_host(once) == once


@given(
    host=st.one_of(st.none(), st.text(max_size=40)),
    target=st.text(max_size=40),
    version=st.sampled_from(["1.0", "1.1"]),
    profile=st.sampled_from(["v1", "v2"]),
)
def test_w14_any_host_and_path_is_decided(
    host: str | None, target: str, version: str, profile: str
) -> None:
    settings = DecisionSettings(table=TableSettings(profile=profile))  # type: ignore[arg-type]
    outcome, _ = ask(host, "/" + target, settings=settings, version=version)
    assert outcome in ("ok", "not_found", "not_deployed", "bad_request")


def test_a_host_that_is_long_for_its_port_is_read_and_not_kept() -> None:
    host = "db.do:" + "0" * 5000 + "80"
    assert normalise_host(host) == "db.do"
    assert ask(host) == ("ok", "db")
    decider = Decider({"production": Shelf(["db"])}, DecisionSettings())
    assert decider.decide_plain(host, "/") is None
