"""What recognizers of remote services share: addresses, errors, words fit for logs, what waits."""

from __future__ import annotations

import email.utils
import time
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.asr.service import (
    Outbox,
    Service,
    checked_url,
    decode_tagged,
    ending_error,
    host,
    plain,
    retry_after_s,
)
from edge.asr.upstream import Ending, Upstream
from edge.errors import RecognizerClosed, RecognizerRefused, SettingError


class Pipe:
    """As much of an ``Upstream`` as an outbox looks at: takes so many messages, then none."""

    def __init__(self, takes: int = 0) -> None:
        self.takes = takes
        self.sent: list[bytes] = []

    @property
    def is_writable(self) -> bool:
        return self.takes > 0

    def send(self, message: bytes) -> None:
        assert self.takes > 0, "only what is writable is written to"
        self.takes -= 1
        self.sent.append(message)


def outbox(pipe: Pipe) -> Outbox:
    return Outbox(cast(Upstream, pipe))


@given(st.lists(st.one_of(st.just("put"), st.integers(1, 4)), max_size=40))
def test_what_is_put_goes_out_once_in_order_whenever_there_is_room(steps: list[Any]) -> None:
    pipe = Pipe()
    box = outbox(pipe)
    put: list[bytes] = []
    for step in steps:
        if step == "put":
            put.append(b"%d" % len(put))
            box.put(pipe.send, put[-1], 20.0)
        else:
            pipe.takes += step
            box.flush()
        assert pipe.sent == put[: len(pipe.sent)]
        assert box.queued_ms == 20.0 * (len(put) - len(pipe.sent))
    pipe.takes = len(put) + 1
    box.flush()
    assert pipe.sent == put
    assert box.queued_ms == 0


def test_what_waits_can_be_given_up() -> None:
    pipe = Pipe()
    box = outbox(pipe)
    box.put(pipe.send, b"audio", 100.0)
    box.clear()
    pipe.takes = 5
    box.flush()
    assert not pipe.sent
    assert box.queued_ms == 0


def test_an_address_is_shown_without_its_secrets() -> None:
    assert host("wss://user:secret@example.org:444/v1?key=x") == "wss://example.org:444"
    assert checked_url("X_URL", "ws://localhost/v1") == "ws://localhost/v1"
    for bad in (
        "https://u:secret@example.org/?token=x",
        "wss://",
        "example.org",
        "wss://example.org/?token=x#part",
        "wss://secret@example.org/",
        "wss://example.org:99999/?token=x",
        "wss://example.org:port/?token=x",
        "wss://[::1/?token=x",
    ):
        with pytest.raises(SettingError, match="X_URL") as refused:
            Service("X", bad, url_setting="X_URL", key_setting="X_KEY")
        assert "secret" not in str(refused.value)
        assert "token" not in str(refused.value)


@pytest.mark.parametrize(
    "said",
    ["wrong key sk-proj-abcdef.", "key 0123456789abcdef0123456789abcdef01234567 is unknown"],
)
def test_keys_that_a_service_quotes_are_not_repeated(said: str) -> None:
    assert "***" in plain(said)
    assert "abcdef" not in plain(said)
    assert len(plain("x" * 1000)) == 300


@pytest.mark.parametrize(
    ("ending", "accepted", "kind", "says"),
    [
        (Ending(), True, RecognizerClosed, "X: the connection was lost"),
        (Ending(1011, "oh"), False, RecognizerClosed, "X closed the connection with 1011: oh"),
        (Ending(1008), False, RecognizerRefused, "X closed the connection with 1008"),
        (Ending(1008), True, RecognizerClosed, "X closed the connection with 1008"),
    ],
)
def test_an_ending_says_whether_another_try_may_help(
    ending: Ending, accepted: bool, kind: type[Exception], says: str
) -> None:
    error = ending_error("X", ending, accepted=accepted)
    assert type(error) is kind
    assert str(error) == says


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after_s("3") == 3
    assert retry_after_s("-3") == 0
    soon = retry_after_s(email.utils.formatdate(time.time() + 30, usegmt=True))
    assert soon == pytest.approx(30, abs=2)
    assert retry_after_s("Thu, 01 Jan 1970 00:00:00 GMT") == 0
    assert retry_after_s("soon") is None
    assert retry_after_s(None) is None


class _Known(msgspec.Struct, tag="known"):
    number: int


def test_messages_are_told_by_their_type_and_unknown_ones_are_none() -> None:
    decoder = msgspec.json.Decoder(_Known)
    assert decode_tagged(decoder, {"known"}, b'{"type":"known","number":1}') == _Known(1)
    assert decode_tagged(decoder, {"known"}, b'{"type":"other","number":"x"}') is None
    for bad in (b'{"type":"known"}', b"[]", b"{}", b"nothing", b'{"type":7}'):
        with pytest.raises(msgspec.DecodeError):
            decode_tagged(decoder, {"known"}, bad)
