"""Where clients may send the gateway, and that no name leads elsewhere."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.asr import allowed_hosts
from edge.asr.allowed_hosts import AllowedHosts, is_public
from edge.errors import RecognizerRefused, SettingError

SETTING = "ALLOWED_HOSTS"


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Every name has these addresses."""

    async def look_up(host: str, port: int) -> list[str]:
        return list(addresses)

    monkeypatch.setattr(allowed_hosts, "look_up", look_up)


@pytest.mark.parametrize(
    ("entries", "host", "entry"),
    [
        (("asr.example",), "asr.example", "asr.example"),
        ((" ASR.Example. ",), "asr.EXAMPLE.", "asr.example"),
        (("bücher.example",), "xn--bcher-kva.example", "xn--bcher-kva.example"),
        (("asr.example",), "evil.asr.example", None),
        (("asr.example",), "asr.example.evil", None),
        (("asr.example",), "10.0.0.1", None),
        (("10.0.0.0/8",), "10.1.2.3", "10.0.0.0/8"),
        (("10.0.0.0/8",), "::ffff:10.1.2.3", "10.0.0.0/8"),
        (("[::1]",), "::1", "::1/128"),
        (("127.0.0.1",), "2130706433", None),
        (("127.0.0.1",), "0x7f.0.0.1", None),
        (("127.0.0.1",), "localhost", None),
        (("8.8.8.8",), "8.8.8.8", "8.8.8.8/32"),
        ((), "asr.example", None),
    ],
)
def test_a_host_is_allowed_by_an_entry_or_not_at_all(
    entries: tuple[str, ...], host: str, entry: str | None
) -> None:
    assert AllowedHosts(SETTING, entries).entry_of(host) == entry


@pytest.mark.parametrize(
    "entry", ["asr.example:443", "https://asr.example", "*.example", "", "a b"]
)
def test_an_entry_that_is_no_host_stops_the_start(entry: str) -> None:
    with pytest.raises(SettingError, match=SETTING):
        AllowedHosts(SETTING, (entry,))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.5.4",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:0:7f00:1:0:0:80ff:fffe",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b:1::7f00:1",
        "fec0::1",
    ],
)
async def test_a_listed_name_does_not_lead_into_the_inner_network(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    resolving(monkeypatch, address)
    assert not is_public(ip_address(address))
    with pytest.raises(RecognizerRefused, match=SETTING):
        await AllowedHosts(SETTING, ("asr.example",)).addresses("asr.example", 443)


async def test_an_address_that_is_listed_too_may_be_anywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolving(monkeypatch, "10.1.2.3", "192.168.0.1", "93.184.216.34")
    hosts = AllowedHosts(SETTING, ("asr.example", "10.0.0.0/8"))
    assert await hosts.addresses("asr.example", 443) == ["10.1.2.3", "93.184.216.34"]


async def test_the_system_is_asked_for_names() -> None:
    hosts = AllowedHosts(SETTING, ("localhost", "127.0.0.0/8", "::1"))
    assert set(await hosts.addresses("localhost", 80)) <= {"127.0.0.1", "::1"}


@given(st.ip_addresses())
def test_an_address_wrapped_in_ipv6_is_as_public_as_itself(address: object) -> None:
    if isinstance(address, IPv4Address):
        assert is_public(ip_address(f"::ffff:{address}")) == is_public(address)


@given(st.text(max_size=30))
def test_any_text_is_an_entry_or_a_setting_error(text: str) -> None:
    try:
        hosts = AllowedHosts(SETTING, (text,))
    except SettingError:
        return
    assert hosts.entry_of("elsewhere.example") is None or "elsewhere" in text.lower()
