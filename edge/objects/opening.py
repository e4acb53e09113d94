"""Which engine a location means."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from edge.errors import SettingError
from edge.objects.files import FileStore
from edge.objects.interface import ObjectStore
from edge.objects.settings import ObjectSettings

FOLDER = "objects"
SPOOL = "objects-spool.db"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def open_objects(settings: ObjectSettings, data_dir: Path) -> ObjectStore:
    """A worker's object store; it still has to be opened. Raises ``SettingError``.

    In front of a bucket stands a spool in the data folder, unless it may hold nothing.
    """
    where = urlsplit(settings.objects)
    if not where.scheme:
        folder = Path(settings.objects).expanduser() if settings.objects else data_dir / FOLDER
        return FileStore(folder, fsync=settings.objects_fsync)
    prefix = where.path.strip("/")
    if where.scheme != "s3" or where.query or not _BUCKET.fullmatch(where.netloc):
        raise SettingError(
            "EDGESCRIBE_OBJECTS", f"{where.scheme}://…", "a path, s3://bucket or s3://bucket/prefix"
        )
    # The client takes its time and memory: only those who have a bucket pay.
    from edge.objects.s3 import S3Store
    from edge.objects.spool import SpooledStore

    bucket = S3Store(settings, where.netloc, f"{prefix}/" if prefix else "")
    if not settings.spool_max_bytes:
        return bucket
    return SpooledStore(bucket, data_dir / SPOOL, settings.spool_max_bytes)
