"""Every error edgescribe raises on purpose, in one tree.

    EdgescribeError
    ├── SettingError           a setting cannot be used: name, value, what is allowed
    ├── MissingDependency      an optional package is absent: which extra installs it
    ├── NoRecognizer           nothing can turn audio to text: what to set or install
    ├── DamagedDependency      a package's file is not the one expected: which, how to reinstall
    ├── RecognizerError        a recognizer connection failed: code, retryable
    │   ├── RecognizerRefused      the service says no and would say it again (401, 403, 404, 4xx)
    │   ├── RecognizerBusy         the service says "not now" (429, 5xx)
    │   ├── RecognizerTimeout      a deadline passed
    │   └── RecognizerClosed       the connection ended while audio was still wanted
    ├── InferenceFailed        the service that tells voices apart gave no answer that can be used
    ├── ObjectError            the object store did not do what was asked, and would not later
    │   ├── ObjectMissing          there is no object of this key
    │   ├── ObjectExists           there is one already, and it was to be new
    │   └── ObjectsUnavailable     no answer in time, or no room: ask again; it may have been done
    └── StoreError             the session store did not do what was asked: retryable
        ├── StaleFence             somebody opened the track again: stop writing it
        ├── HistoryLost            the log is not the one that was written: a new epoch has begun
        ├── Conflict               a record has another version: read it again
        ├── SessionDeleted         the session was deleted and takes nothing more
        ├── StoreBusy              too much waits to be written: nothing was done
        ├── StoreUnavailable       no answer in time: whether it was done is not known
        └── StoreDamaged           the database cannot be read

A module's own errors (a port that is taken, a file that cannot be read) derive from the first one.
Messages say what is wrong, where, and what to do. They never hold keys, tokens or transcripts.
"""

from __future__ import annotations


class EdgescribeError(Exception):
    """Base of all deliberate errors; ``str(error)`` is fit for a person to read."""


class SettingError(EdgescribeError):
    """A setting has a value that cannot be used."""

    def __init__(self, name: str, value: str, allowed: str) -> None:
        self.name = name
        self.value = value
        self.allowed = allowed
        super().__init__(f"{name}={value!r} cannot be used: {allowed}")


class MissingDependency(EdgescribeError):
    """An optional package is needed for what was asked."""

    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(f"{package} is not installed: pip install 'edgescribe[{extra}]'")


class DamagedDependency(EdgescribeError):
    """A file of an installed package is not the one this code was made for."""

    def __init__(self, package: str, path: str, fault: str) -> None:
        self.package = package
        self.path = path
        super().__init__(
            f"{path} cannot be used: {fault}; run: pip install --force-reinstall '{package}'"
        )


class NoRecognizer(EdgescribeError):
    """No recognizer can be used; ``reasons`` says by name what each would need."""

    def __init__(self, reasons: dict[str, str]) -> None:
        self.reasons = reasons
        listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        super().__init__(f"no recognizer can be used ({listed})")


class RecognizerError(EdgescribeError):
    """A recognizer connection failed.

    ``code`` is a short stable word for metrics, ``retryable`` says whether the same request may
    succeed later. Subclasses decide both, so that nothing else has to.
    """

    code = "failed"
    retryable = True


class RecognizerRefused(RecognizerError):
    """The service refused and will refuse again: bad key, unknown model, malformed request."""

    code = "refused"
    retryable = False


class RecognizerBusy(RecognizerError):
    """The service is there but cannot take this now (429 or 5xx)."""

    code = "busy"

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class RecognizerTimeout(RecognizerError):
    """The service did not answer within its deadline."""

    code = "timeout"


class RecognizerClosed(RecognizerError):
    """The service closed the connection while audio was still wanted."""

    code = "closed"


class InferenceFailed(EdgescribeError):
    """No usable answer of the service that tells voices apart; nothing was changed (502)."""


class StoreError(EdgescribeError):
    """The session store did not do what was asked; ``retryable``: asking again may succeed."""

    retryable = False


class StaleFence(StoreError):
    """A newer holder has opened the track; this one must stop and close its client (4009)."""

    def __init__(self, session: str, track: str, fence: int, current: int) -> None:
        self.fence = fence
        self.current = current
        super().__init__(
            f"track {track!r} of session {session!r} was taken over: "
            f"fence {fence} is not the current {current}"
        )


class HistoryLost(StoreError):
    """The session's log was lost, rolled back or cleared; open the track again to go on."""

    def __init__(self, session: str, epoch: str) -> None:
        self.epoch = epoch
        super().__init__(f"the log of session {session!r} is another one now: epoch {epoch}")


class Conflict(StoreError):
    """A record was changed by somebody else; ``version`` (0: none) and ``body`` are there now."""

    def __init__(self, key: str, version: int, body: bytes) -> None:
        self.version = version
        self.body = body
        super().__init__(f"record {key!r} has version {version}")


class SessionDeleted(StoreError):
    """The session was deleted; its name is free again when the tombstone has expired."""

    def __init__(self, session: str) -> None:
        super().__init__(f"session {session!r} was deleted")


class StoreBusy(StoreError):
    """The bounded queue in front of the store is full; nothing was done."""

    retryable = True


class StoreUnavailable(StoreError):
    """The store did not answer in time or cannot be reached; a write may have happened."""

    retryable = True


class StoreDamaged(StoreError):
    """The database is there but cannot be read."""


class ObjectError(EdgescribeError):
    """The object store did not do what was asked."""


class ObjectMissing(ObjectError):
    """There is no object of this key."""

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"there is no object {key!r}")


class ObjectExists(ObjectError):
    """There is an object of this key already, and it was to be new."""

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"there is an object {key!r} already")


class ObjectsUnavailable(ObjectError):
    """The object store did not answer in time, cannot be reached, or has no room left."""
