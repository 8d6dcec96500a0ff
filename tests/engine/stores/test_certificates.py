"""What a certificate is found by, however it is given."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BadInput
from engine.stores.certificates import fingerprint_of, prints
from tests.certificates import issued

AUTHORITY = issued("authority", authority=True)
DEVICE = issued("device", AUTHORITY)
SHA_256 = hashlib.sha256(DEVICE.der).hexdigest()
BASE64 = base64.b64encode(DEVICE.der).decode()
COLONS = ":".join(textwrap.wrap(SHA_256.upper(), 2))


@pytest.mark.spec("G-9", "TB-S32")
@pytest.mark.parametrize(
    "text",
    [
        pytest.param(DEVICE.pem, id="PEM"),
        pytest.param(DEVICE.pem.replace("\n", "\r\n"), id="PEM of other line ends"),
        pytest.param("Subject: device\n" + DEVICE.pem + AUTHORITY.pem, id="PEM with its issuer behind"),
        pytest.param(BASE64, id="base64"),
        pytest.param("\n".join(textwrap.wrap(BASE64, 64)), id="base64 in lines"),
        pytest.param(SHA_256, id="fingerprint"),
        pytest.param(f" {COLONS}\n", id="fingerprint as openssl writes it"),
    ],
)
def test_all_forms_give_the_same(text: str) -> None:
    assert fingerprint_of(text) == SHA_256
    assert prints(DEVICE.der)[0] == f"X509_CERTIFICATE:{SHA_256}"


@pytest.mark.spec("TB-S32")
def test_the_vendors_fingerprint_is_one_of_its_own() -> None:
    theirs = hashlib.sha3_256(BASE64.encode()).hexdigest()
    assert prints(DEVICE.der)[1] == f"X509_CERTIFICATE:{fingerprint_of(theirs)}" != prints(DEVICE.der)[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no certificate",
        SHA_256[:-1],
        SHA_256 + "a",
        DEVICE.pem[:300],
        DEVICE.pem.replace("MII", "!!!"),
        DEVICE.pem.replace("CERTIFICATE", "PRIVATE KEY"),
        BASE64[:-8],
        base64.b64encode(b"\x30\x03\x02\x01\x01").decode(),
        "-----END CERTIFICATE----------BEGIN CERTIFICATE-----",
        "é" * 64,
    ],
    ids=range(11),  # the texts are others in every process
)
def test_what_is_no_certificate_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="PEM or base64") as refused:
        fingerprint_of(text)
    assert refused.value.pointer == "/value"


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: base64.b64encode(raw).decode()))
def test_any_text_is_refused_or_64_digits(text: str) -> None:
    with contextlib.suppress(BadInput):
        assert len(bytes.fromhex(fingerprint_of(text))) == 32
