"""What becomes of what S3 services answer: asked again, or told, and never with a key in it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.errors import ObjectError, ObjectExists, ObjectMissing, ObjectsUnavailable, SettingError
from edge.objects.files import FileStore
from edge.objects.opening import open_objects
from edge.objects.s3 import ATTEMPTS, S3Store
from edge.objects.settings import MIB, ObjectSettings
from edge.objects.spool import SpooledStore
from tests.objects.support.scripted import BROKEN, HANGS, Answer, ScriptedS3
from tests.objects.support.seaweed import READER_KEY, Seaweed
from tests.support.server import free_port

SECRETS = ("AKIDSECRET", "verysecret", "tokensecret")


@pytest.fixture
async def service() -> AsyncIterator[ScriptedS3]:
    async with ScriptedS3() as running:
        yield running


@pytest.fixture
async def store(service: ScriptedS3) -> AsyncIterator[S3Store]:
    settings = ObjectSettings(
        s3_endpoint=service.endpoint,
        s3_access_key="AKIDSECRET",
        s3_secret_key="verysecret",
        s3_session_token="tokensecret",
        s3_encryption="aws:kms",
        s3_kms_key="alias/ours",
        objects_deadline_s=2.0,
        s3_part_bytes=5 * MIB,
    )
    async with S3Store(settings, "recordings", "here/") as opened:
        service.seen.clear()
        yield opened


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500, "InternalError"),
        Answer(503, "SlowDown"),
        Answer(429, "TooManyRequests"),
        Answer(400, "RequestTimeout"),
        Answer(409, "ConditionalRequestConflict"),
        Answer(502),
        Answer(BROKEN),
    ],
    ids=lambda answer: f"{answer.status}-{answer.code}",
)
async def test_not_now_is_asked_again(service: ScriptedS3, store: S3Store, answer: Answer) -> None:
    service.answers.extend([answer, answer])
    await store.put("a/b", b"body")
    assert [seen.path for seen in service.seen] == ["/recordings/here/a/b"] * 3


async def test_not_now_is_not_asked_for_ever(service: ScriptedS3, store: S3Store) -> None:
    service.answers.extend([Answer(503, "SlowDown")] * 50)
    with pytest.raises(ObjectsUnavailable, match="503 SlowDown"):
        await store.put("a/b", b"body")
    assert len(service.seen) == ATTEMPTS


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(400, "InvalidRequest"), ObjectError),
        (Answer(400, "ExpiredToken"), ObjectsUnavailable),
        (Answer(403, "SignatureDoesNotMatch"), ObjectsUnavailable),
        (Answer(404, "NoSuchBucket"), ObjectsUnavailable),
        (Answer(413, "EntityTooLarge"), ObjectError),
    ],
    ids=lambda value: getattr(value, "code", None),
)
async def test_what_would_be_refused_again_is_asked_once_and_told_without_secrets(
    service: ScriptedS3, store: S3Store, answer: Answer, kind: type[Exception]
) -> None:
    service.answers.append(answer)
    with pytest.raises(ObjectError) as caught:
        await store.put("a/b", b"body")
    assert type(caught.value) is kind and len(service.seen) == 1
    assert answer.code in str(caught.value) and "recordings" in str(caught.value)
    error: BaseException | None = caught.value
    while error is not None:
        assert not any(secret in str(error) for secret in SECRETS)
        assert error.__suppress_context__ or error.__context__ is None
        error = error.__cause__


async def test_a_service_that_hangs_is_given_up_in_time(
    service: ScriptedS3, store: S3Store
) -> None:
    service.answers.extend([Answer(HANGS)] * 20)
    begun_s = time.monotonic()
    for work in (store.put("a", b""), store.find("")):
        with pytest.raises(ObjectsUnavailable):
            await work
    assert time.monotonic() - begun_s < 2 * 2.0 + 4.0


async def test_a_new_object_whose_answer_was_lost_finds_itself(
    service: ScriptedS3, store: S3Store
) -> None:
    service.answers.extend([Answer(500, "InternalError"), Answer(412, "PreconditionFailed")])
    await store.put("a/b", b"body", only_new=True)
    assert service.seen[0].headers["If-None-Match"] == "*"
    assert service.seen[-1].method == "HEAD"
    service.answers.extend([Answer(412, "PreconditionFailed"), Answer(404)])
    with pytest.raises(ObjectExists):
        await store.put("a/b", b"body", only_new=True)


async def test_types_metadata_and_encryption_go_along(service: ScriptedS3, store: S3Store) -> None:
    await store.put("a", b"{}", content_type="application/json", metadata={"seq": "1"})
    (seen,) = service.seen
    assert seen.headers["Content-Type"] == "application/json"
    assert seen.headers["x-amz-meta-seq"] == "1"
    assert seen.headers["x-amz-server-side-encryption"] == "aws:kms"
    assert seen.headers["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/ours"


async def test_parts_that_cannot_be_put_together_are_given_up(
    service: ScriptedS3, store: S3Store
) -> None:
    service.answers.extend([Answer(200), Answer(403, "AccessDenied"), Answer(200)])
    with pytest.raises(ObjectsUnavailable, match="AccessDenied"):
        await store.put("large", bytes(11 * MIB))
    assert service.aborted.is_set()
    service.aborted.clear()
    service.answers.extend([Answer(HANGS)] * 20)
    putting = asyncio.create_task(store.put("large", bytes(11 * MIB)))
    while not any("uploadId=u2" in request.query for request in service.seen):
        await asyncio.sleep(0.01)
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert service.aborted.is_set()


async def test_nobody_listens(tmp_path: Path) -> None:
    """Without a spool that is told within the deadline; with one the worker starts all the same."""
    settings = ObjectSettings(
        objects="s3://recordings",
        s3_endpoint=f"http://127.0.0.1:{free_port()}",
        s3_access_key="AKIDSECRET",
        s3_secret_key="verysecret",
        spool_max_bytes=0,
    )
    async with open_objects(settings, tmp_path) as store:
        with pytest.raises(ObjectsUnavailable, match="EDGESCRIBE_S3_ENDPOINT"):
            await store.put("a", b"")


async def test_keys_that_may_not_write_are_told(seaweed: Seaweed, tmp_path: Path) -> None:
    reader = seaweed.settings(s3_access_key=READER_KEY, spool_max_bytes=0)
    async with open_objects(reader, tmp_path) as store:
        with pytest.raises(ObjectMissing):
            await store.get("a")
        with pytest.raises(ObjectsUnavailable, match=r"403 AccessDenied.*ACCESS_KEY"):
            await store.put("a", b"")
    wrong = seaweed.settings(s3_secret_key="wrong", spool_max_bytes=0)
    async with open_objects(wrong, tmp_path) as store:
        with pytest.raises(ObjectsUnavailable, match="403 SignatureDoesNotMatch"):
            await store.get("a")


async def test_a_bucket_that_does_not_exist_stops_the_start(
    seaweed: Seaweed, tmp_path: Path
) -> None:
    with pytest.raises(ObjectError, match=r"'nowhere'.*does not exist.*EDGESCRIBE_OBJECTS"):
        await open_objects(seaweed.settings(objects="s3://nowhere"), tmp_path).open()


def test_locations_name_an_engine(tmp_path: Path) -> None:
    assert isinstance(open_objects(ObjectSettings(), tmp_path), FileStore)
    assert isinstance(open_objects(ObjectSettings(objects="/var/x"), tmp_path), FileStore)
    assert isinstance(open_objects(ObjectSettings(objects="s3://b-1/x/y"), tmp_path), SpooledStore)
    for location in (
        "gs://bucket",
        "s3://key:secret@bucket",
        "s3://",
        "s3://Bucket",
        "s3://b/?x=y",
    ):
        with pytest.raises(SettingError, match="EDGESCRIBE_OBJECTS") as caught:
            open_objects(ObjectSettings(objects=location), tmp_path)
        assert "secret" not in str(caught.value)
