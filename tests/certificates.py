"""Certificates for tests: of a server on localhost, of devices, signed by themselves or by an authority."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Made:
    """A certificate with its key, as files too once `write` was called."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def write(self, folder: Path, name: str, *issuers: Made) -> tuple[str, str]:
        """Files of the certificate, with its issuers behind it, and of the key."""
        made, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
        made.write_text("".join(each.pem for each in (self, *issuers)))
        key.write_bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return str(made), str(key)


def issued(
    name: str, issuer: Made | None = None, *, authority: bool = False, begins: float = -1, ends: float = 2
) -> Made:
    """A certificate that `issuer` signed, or itself; valid between two days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer is not None else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins * DAY)
        .not_valid_after(now + ends * DAY)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
    )
    return Made(builder.sign(issuer.key if issuer is not None else key, hashes.SHA256()), key)


def certificate(folder: Path) -> tuple[str, str]:
    """Certificate and key of localhost as files in that folder; its own authority."""
    return issued("localhost", authority=True).write(folder, "server")
