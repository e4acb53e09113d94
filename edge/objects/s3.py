"""Objects in a bucket of AWS, Cloudflare R2, MinIO, SeaweedFS or another S3-compatible service.

Comes in: bodies and keys. Goes out: signed requests of the S3 protocol
(https://docs.aws.amazon.com/AmazonS3/latest/API/). A whole call has one deadline; answers that say
"not now" are asked for again within it, with jitter. What else a service refuses, it would refuse
again.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    ParamValidationError,
)
from botocore.exceptions import (
    ConnectionError as EndpointError,
)
from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from edge.errors import ObjectError, ObjectExists, ObjectMissing, ObjectsUnavailable
from edge.logs import get_logger
from edge.objects.interface import ObjectStore, check_key
from edge.objects.settings import MIB, ObjectSettings

ATTEMPTS = 4
FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 1.0
PARTS_AT_ONCE = 4
MARK = "edgescribe-put"
PAGE = 1000
"""The most keys that one list or one removal takes."""
_LATER = frozenset(
    {
        "ConditionalRequestConflict",
        "OperationAborted",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestTimeout",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
    }
)
"""Codes that mean "not now", whatever the status beside them."""
_KEYS = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired"})
"""Codes that are about the access key, and not about what was asked."""
_NETWORK = (EndpointError, HTTPClientError, aiohttp.ClientError, OSError)

T = TypeVar("T")
_log = get_logger("edge.objects.s3")


class S3Store(ObjectStore):
    """Keys below ``prefix`` in one bucket."""

    def __init__(self, settings: ObjectSettings, bucket: str, prefix: str = "") -> None:
        self._settings = settings
        self._bucket = bucket
        self._prefix = prefix
        host = urlsplit(settings.s3_endpoint).netloc or "AWS"
        self._where = f"bucket {bucket!r} of {host}"
        self._encryption = {
            name: value
            for name, value in (
                ("ServerSideEncryption", settings.s3_encryption),
                ("SSEKMSKeyId", settings.s3_kms_key),
            )
            if value
        }
        self._stack = AsyncExitStack()
        self._client: Any = None

    async def open(self) -> None:
        """Make the client; raises ``ObjectError`` when there is no such bucket.

        A service that is away, or that lets nobody look at the bucket itself, stops nobody.
        """
        settings = self._settings
        path_style = settings.s3_addressing == "path" or (
            settings.s3_addressing == "auto" and settings.s3_endpoint
        )
        self._client = await self._stack.enter_async_context(
            get_session().create_client(
                "s3",
                region_name=settings.s3_region,
                endpoint_url=settings.s3_endpoint or None,
                aws_access_key_id=settings.s3_access_key or None,
                aws_secret_access_key=settings.s3_secret_key or None,
                aws_session_token=settings.s3_session_token or None,
                config=AioConfig(
                    connect_timeout=settings.objects_deadline_s / 3,
                    read_timeout=settings.objects_deadline_s / 2,
                    max_pool_connections=settings.s3_connections,
                    retries={"total_max_attempts": 1},
                    s3={"addressing_style": "path" if path_style else "virtual"},
                    # Not every service knows the checksums that AWS introduced in 2025.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        )
        try:
            async with self._deadline():
                await self._ask(lambda: self._client.head_bucket(Bucket=self._bucket))
        except ObjectMissing:
            await self.close()
            raise ObjectError(
                f"{self._where} does not exist: create it, or name another in EDGESCRIBE_OBJECTS"
            ) from None
        except ObjectError as error:
            _log.warning("the object store cannot be looked at", reason=str(error))

    async def close(self) -> None:
        """Close the connections; what is under way fails."""
        self._client = None
        await self._stack.aclose()

    async def put(
        self,
        key: str,
        body: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] = {},
        only_new: bool = False,
    ) -> None:
        """In one request, or in parts when it is large; the parts appear together or not at all.

        ``metadata`` is ASCII. A mark is added to it, for a request that was carried out without an
        answer is sent again, and a new object then finds itself.
        """
        target = {"Bucket": self._bucket, "Key": self._key(key)}
        mark = secrets.token_hex(8)
        about = {
            "ContentType": content_type,
            "Metadata": {**metadata, MARK: mark},
            **self._encryption,
        }
        condition = {"IfNoneMatch": "*"} if only_new else {}
        async with self._deadline(len(body)):
            try:
                if len(body) > self._settings.s3_part_bytes:
                    await self._put_parts(target, about, condition, body)
                else:
                    await self._ask(
                        lambda: self._client.put_object(**target, **about, **condition, Body=body)
                    )
            except (_Held, ObjectMissing) as error:
                if await self._mark(target) == mark:
                    return
                if isinstance(error, _Held):
                    raise ObjectExists(key) from None
                raise ObjectsUnavailable(f"{self._where} lost the parts of an object") from None

    async def get(self, key: str) -> bytes:
        async def read() -> bytes:
            answer = await self._client.get_object(Bucket=self._bucket, Key=name)
            async with answer["Body"] as stream:
                body: bytes = await stream.read()
            return body

        name = self._key(key)
        try:
            async with self._deadline():
                return await self._ask(read)
        except ObjectMissing:
            raise ObjectMissing(key) from None

    async def find(self, prefix: str, after: str = "", limit: int = 1000) -> list[str]:
        keys: list[str] = []
        while len(keys) < limit:
            wanted = {
                "Prefix": self._prefix + prefix,
                "MaxKeys": min(PAGE, limit - len(keys)),
                **({"StartAfter": self._prefix + after} if after else {}),
            }
            async with self._deadline():
                page = await self._ask(partial(self._list, wanted))
            found = [each["Key"].removeprefix(self._prefix) for each in page.get("Contents", ())]
            keys += found
            if not found or not page.get("IsTruncated"):
                break
            after = found[-1]
        return keys

    async def remove(self, keys: Sequence[str]) -> None:
        names = [self._key(key) for key in keys]
        for begin in range(0, len(names), PAGE):
            page = names[begin : begin + PAGE]
            async with self._deadline():
                await self._ask(partial(self._delete, page))

    def _key(self, key: str) -> str:
        check_key(key)
        return self._prefix + key

    def _deadline(self, size: int = 0) -> _Deadline:
        return _Deadline(self._settings.objects_deadline_s * max(1.0, size / MIB), self._where)

    async def _list(self, wanted: dict[str, Any]) -> dict[str, Any]:
        page: dict[str, Any] = await self._client.list_objects_v2(Bucket=self._bucket, **wanted)
        return page

    async def _delete(self, names: list[str]) -> None:
        if len(names) == 1:
            await self._client.delete_object(Bucket=self._bucket, Key=names[0])
            return
        answer = await self._client.delete_objects(
            Bucket=self._bucket,
            Delete={"Objects": [{"Key": name} for name in names], "Quiet": True},
        )
        for fault in answer.get("Errors", ()):
            if fault.get("Code") != "NoSuchKey":
                raise ClientError({"Error": {"Code": fault.get("Code", "")}}, "DeleteObjects")

    async def _put_parts(
        self,
        target: dict[str, str],
        about: dict[str, Any],
        condition: dict[str, str],
        body: bytes,
    ) -> None:
        begun = await self._ask(lambda: self._client.create_multipart_upload(**target, **about))
        upload = {**target, "UploadId": begun["UploadId"]}
        turns = asyncio.Semaphore(PARTS_AT_ONCE)
        size, view = self._settings.s3_part_bytes, memoryview(body)

        async def send(number: int, begin: int) -> dict[str, Any]:
            async with turns:
                part = bytes(view[begin : begin + size])
                sent = await self._ask(
                    lambda: self._client.upload_part(**upload, PartNumber=number, Body=part)
                )
                return {"ETag": sent["ETag"], "PartNumber": number}

        try:
            async with asyncio.TaskGroup() as group:
                parts = [
                    group.create_task(send(number, begin))
                    for number, begin in enumerate(range(0, len(body), size), 1)
                ]
            sent = {"Parts": [part.result() for part in parts]}
            await self._ask(
                lambda: self._client.complete_multipart_upload(
                    **upload, **condition, MultipartUpload=sent
                )
            )
        except BaseException as error:
            # Parts that nobody put together would be kept, and paid for, for ever.
            with contextlib.suppress(ObjectError):
                async with self._deadline():
                    await self._ask(lambda: self._client.abort_multipart_upload(**upload))
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from None
            raise

    async def _mark(self, target: dict[str, str]) -> str:
        """The mark of the object that a key has."""
        try:
            about = await self._ask(lambda: self._client.head_object(**target))
        except ObjectMissing:
            return ""
        return str(about.get("Metadata", {}).get(MARK, ""))

    async def _ask(self, work: Callable[[], Awaitable[T]]) -> T:
        """What ``work`` gives, asked for again while the service says "not now".

        Raises ``_Held`` when a key has an object, ``ObjectMissing`` when something has not. No
        error keeps what a service wrote: only its codes are known to hold no keys.
        """
        if self._client is None:
            raise ObjectsUnavailable("the object store is closed")
        try:
            async for attempt in AsyncRetrying(
                stop=stop_after_attempt(ATTEMPTS),
                wait=wait_random_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S),
                retry=retry_if_exception(_may_pass),
                reraise=True,
            ):
                with attempt:
                    return await work()
        except ClientError as error:
            raise self._refusal(error) from None
        except _NETWORK as error:
            raise ObjectsUnavailable(
                f"{self._where} cannot be reached ({type(error).__name__}): look at the network"
                " and at EDGESCRIBE_S3_ENDPOINT"
            ) from None
        except ParamValidationError as error:
            # Of what was asked for it tells which members are wrong, and nothing they hold.
            raise ObjectError(
                f"{self._where} cannot be asked this: {type(error).__name__}"
            ) from None
        except BotoCoreError as error:
            raise ObjectsUnavailable(
                f"{self._where} cannot be asked ({type(error).__name__}): look at the settings"
                " that begin with EDGESCRIBE_S3_"
            ) from None
        raise AssertionError("the last attempt raises")

    def _refusal(self, error: ClientError) -> Exception:
        code, status = _code(error), _status(error)
        if status == 412 or code == "PreconditionFailed":
            return _Held()
        if _may_pass(error):
            return ObjectsUnavailable(f"{self._where} answers {status} {code}")
        if status in (401, 403) or code in _KEYS:
            return ObjectsUnavailable(
                f"{self._where} answers {status} {code}: look at EDGESCRIBE_S3_ACCESS_KEY and"
                " EDGESCRIBE_S3_SECRET_KEY, and at what that key may do"
            )
        if code == "NoSuchBucket" and error.operation_name != "HeadBucket":
            return ObjectsUnavailable(
                f"{self._where} answers {status} {code}: it does not exist any more"
            )
        if status == 404:
            return ObjectMissing("")
        return ObjectError(f"{self._where} refuses {error.operation_name}: {status} {code}")


class _Held(Exception):
    """A condition was not met: the key has an object."""


class _Deadline:
    """A time limit that ends in ``ObjectsUnavailable``."""

    def __init__(self, seconds: float, where: str) -> None:
        self._seconds = seconds
        self._where = where
        self._limit = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            await self._limit.__aexit__(kind, error, trace)
        except TimeoutError:
            raise ObjectsUnavailable(
                f"{self._where} did not answer in {self._seconds:g} s"
            ) from None


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed in a moment."""
    if isinstance(error, ClientError):
        status = _status(error)
        return status >= 500 or status == 429 or _code(error) in _LATER | {"InternalError"}
    return isinstance(error, _NETWORK)
