"""Where objects are kept, how safely, and what happens while an object store is away."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edge.option import option

MIB = 1 << 20


class ObjectSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The object store of all workers, and of all nodes that are one gateway."""

    objects: Annotated[
        str,
        option(
            "Object store: a path, or s3://bucket or s3://bucket/prefix; empty is the data folder"
        ),
    ] = ""
    """Nodes that are one gateway share one bucket, or one folder."""
    objects_fsync: Annotated[
        bool, option("Whether objects in a folder survive a loss of power, too")
    ] = False
    """Without it they survive the death of any process."""
    objects_deadline_s: Annotated[
        float, option("Longest wait for a service to store or read 1 MiB, retries included", gt=0)
    ] = 5.0
    """Larger bodies get as much again for each MiB. Then the service counts as away."""
    spool_max_bytes: Annotated[
        int, option("Bytes of objects kept on local disk while a service is away", ge=0)
    ] = 1024 * MIB
    """Of all workers of a node together. When it is full, chunks are refused and not acked."""
    s3_endpoint: Annotated[
        str,
        option(
            "URL of an S3-compatible service; empty is AWS",
            env=("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
            pattern=r"^(https?://[^@/?#\s]+/?)?$",
        ),
    ] = ""
    """R2: ``https://ACCOUNT.r2.cloudflarestorage.com``."""
    s3_region: Annotated[
        str, option("Region of the bucket; R2: auto", env=("AWS_REGION", "AWS_DEFAULT_REGION"))
    ] = "us-east-1"
    """Part of every signature; services other than AWS and R2 rarely look at it."""
    s3_access_key: Annotated[str, option("Access key", env="AWS_ACCESS_KEY_ID", secret=True)] = ""
    """Without one the AWS client looks for a role of the machine, then a profile."""
    s3_secret_key: Annotated[
        str, option("Secret key", env="AWS_SECRET_ACCESS_KEY", secret=True)
    ] = ""
    """Belongs to the access key."""
    s3_session_token: Annotated[
        str, option("Token of temporary keys", env="AWS_SESSION_TOKEN", secret=True)
    ] = ""
    """Empty for keys that last."""
    s3_addressing: Annotated[
        Literal["auto", "path", "virtual"],
        option("Where requests name the bucket: in the path or in the host"),
    ] = "auto"
    """``auto``: in the path when there is an endpoint, in the host on AWS."""
    s3_encryption: Annotated[
        Literal["", "AES256", "aws:kms"],
        option("Encryption at rest that each object asks for; empty leaves it to the bucket"),
    ] = ""
    """SSE-S3 or SSE-KMS."""
    s3_kms_key: Annotated[str, option("Key for aws:kms; empty is the account's own")] = ""
    """An id or an ARN; not a secret."""
    s3_part_bytes: Annotated[
        int, option("Bodies above this are sent in parts of it", ge=5 * MIB, le=1024 * MIB)
    ] = 8 * MIB
    """5 MiB is the least the protocol allows."""
    s3_connections: Annotated[
        int, option("Connections of a worker to the service", ge=1, le=1000)
    ] = 32
    """Further calls wait for one, within their deadline."""
