"""TLS of the gateway's port: its certificate chain and key, checked before anything starts.

The handshakes themselves are Sanic's: TLS 1.3, or 1.2 with forward secrecy and authenticated
ciphers. Files are read at start, and again by a worker that replaces one that ended.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import msgspec

from edge.errors import SettingError
from edge.server.settings import ServerSettings


class Credentials(msgspec.Struct, frozen=True):
    """A certificate chain (the gateway's own certificate first) and its key, both PEM."""

    cert: Path
    key: Path

    def for_sanic(self) -> dict[str, Any]:
        """The pair as Sanic takes it and hands it to its workers.

        Sanic would look up the certificate's names to choose among several, and fails for one that
        has none; there is only this one.
        """
        return {"cert": str(self.cert), "key": str(self.key), "names": ()}


def credentials(server: ServerSettings) -> Credentials | None:
    """What the settings name, or None for a gateway without TLS.

    Raises ``SettingError`` when only one of the two is named, a file cannot be read, is not what it
    should be, or the key is not that of the certificate.
    """
    if server.tls_cert is None and server.tls_key is None:
        return None
    if server.tls_key is None:
        raise SettingError("tls_cert", str(server.tls_cert), "tls_key must be set with it")
    if server.tls_cert is None:
        raise SettingError("tls_key", str(server.tls_key), "tls_cert must be set with it")
    pair = Credentials(server.tls_cert.absolute(), server.tls_key.absolute())
    _pem(
        pair.cert, "tls_cert", "CERTIFICATE-----", "a PEM file of certificates, the gateway's first"
    )
    key = _pem(pair.key, "tls_key", "PRIVATE KEY-----", "a PEM file of a private key")
    if "ENCRYPTED" in key:
        raise SettingError("tls_key", str(pair.key), "the key must not need a passphrase")
    _context(pair)
    return pair


def valid_until(pair: Credentials) -> str:
    """The end of the certificate's life as OpenSSL writes it; ``SettingError`` outside that life.

    A client that trusts just this certificate meets the gateway's side in memory.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(pair.cert)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = _context(pair).wrap_bio(to_server, to_client, server_side=True)
    far = client.wrap_bio(to_client, to_server)
    for side in (far, near, far):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            raise SettingError("tls_cert", str(pair.cert), error.verify_message) from error
    certificate = far.getpeercert() or {}
    return str(certificate.get("notAfter", "unknown"))


def _pem(path: Path, name: str, marker: str, wanted: str) -> str:
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        reason = error.strerror or str(error)
        raise SettingError(name, str(path), f"cannot read it: {reason}") from error
    if marker not in text:
        raise SettingError(name, str(path), f"it must be {wanted}")
    return text


def _context(pair: Credentials) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(pair.cert, pair.key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            wrong = f"it is not the key of the first certificate in {pair.cert}"
            raise SettingError("tls_key", str(pair.key), wrong) from error
        wrong = f"OpenSSL cannot use it with {pair.key}: {error.reason or error}"
        raise SettingError("tls_cert", str(pair.cert), wrong) from error
    return context
