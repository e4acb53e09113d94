"""What goes over the wire, and its signature as somebody else computes it."""

from __future__ import annotations

import json
import subprocess

import pytest

from dispatch.messages import transcription
from dispatch.signature import is_signed, sign
from dispatch.transports.http import retry_after_s

SECRET = b"a secret of the test"


def test_a_message_has_these_members_and_no_others() -> None:
    body = transcription("room", "anna", ["good", "morning"], 1700000000123, "en")
    assert body is not None
    assert json.loads(body) == {
        "sessionId": "room",
        "endpointId": "anna",
        "text": "good morning",
        "timestamp": 1700000000123,
        "language": "en",
    }


def test_a_final_without_a_participant_is_of_unknown_and_one_without_text_is_no_message() -> None:
    body = transcription("room", "", ["yes"], 5)
    assert body is not None
    assert json.loads(body) == {
        "sessionId": "room",
        "endpointId": "unknown",
        "text": "yes",
        "timestamp": 5,
    }
    assert transcription("room", "anna", [" ", ""], 5) is None


def test_openssl_computes_the_same_signature() -> None:
    body = '{"text": "grüße"}'.encode()
    command = ["openssl", "dgst", "-sha256", "-hmac", SECRET.decode(), "-r"]
    made = subprocess.run(command, input=b"1700000000." + body, capture_output=True, check=True)
    digest = made.stdout.split()[0].decode()
    assert sign(SECRET, body, 1700000000) == f"t=1700000000,v1={digest}"


@pytest.mark.parametrize(
    "value",
    ["", "t=,v1=", "t=1700000000", "v1=00", "t=1700000000,v1=00", "t=²,v1=é", "t=" + "9" * 5000],
)
def test_what_is_not_a_signature_is_not_taken(value: str) -> None:
    assert not is_signed(SECRET, b"body", value, 1700000000)


def test_a_signature_is_of_one_body_one_secret_and_five_minutes() -> None:
    value = sign(SECRET, b"body", 1700000000)
    assert is_signed(SECRET, b"body", value, 1700000300)
    assert not is_signed(SECRET, b"body", value, 1700000301)
    assert not is_signed(SECRET, b"body", value, 1699999699)
    assert not is_signed(SECRET, b"other", value, 1700000000)
    assert not is_signed(b"another", b"body", value, 1700000000)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("7", 7.0),
        ("99999", 3600.0),
        ("Tue, 14 Nov 2023 22:13:30 GMT", 10.0),
        ("Tue, 14 Nov 2023 22:13:00 GMT", 0.0),
        ("-1", None),
        ("soon", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, expected: float | None) -> None:
    assert retry_after_s(value, 1700000000.0) == expected
