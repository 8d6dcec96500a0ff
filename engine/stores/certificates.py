"""X.509 certificates as credentials: a device is found by the fingerprint of the one that it proved to have."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import ssl
from typing import Final

from engine.errors import BadInput

X509_CERTIFICATE: Final = "X509_CERTIFICATE"

_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}")
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def fingerprint_of(given: str) -> str:
    """The digest of a certificate given as PEM, as the base64 inside of it, or by its fingerprint.

    A fingerprint is 64 hex digits, with colons or not: SHA-256 of the DER, or ThingsBoard's, which is SHA3-256 of its
    base64 (a device that logs in is looked up by both). Of several certificates in a PEM the first counts.
    """
    text = given.strip()
    if _HEX.fullmatch(text):
        return text.replace(":", "").lower()
    try:
        if _BEGIN in text:
            first = text[text.index(_BEGIN) : text.index(_END) + len(_END)]
            der = ssl.PEM_cert_to_DER_cert(first)
        else:
            der = base64.b64decode("".join(text.split()), validate=True)
        _check(der)
    except (ValueError, binascii.Error) as error:
        raise BadInput(
            "must be a certificate as PEM or base64, or its SHA-256 fingerprint as 64 hex digits", "/value"
        ) from error
    return hashlib.sha256(der).hexdigest()


def prints(der: bytes) -> tuple[str, str]:
    """What the device of a certificate may be found by, likeliest first."""
    theirs = hashlib.sha3_256(base64.b64encode(der)).hexdigest()
    return f"{X509_CERTIFICATE}:{hashlib.sha256(der).hexdigest()}", f"{X509_CERTIFICATE}:{theirs}"


def _check(der: bytes) -> None:
    # Here, as only whoever sets credentials needs it.
    from cryptography.x509 import load_der_x509_certificate

    load_der_x509_certificate(der)
