"""Checksums as the vendor's server writes them."""

from __future__ import annotations

from typing import get_args

import pytest

from engine.stores.checksums import Algorithm, checksum

# Of b"hello", the first four by coreutils; the numbers are 0x3610a686, 0x248bfa47 and, of 128 bits,
# 0x5b1e906a48ae1d19 and 0xcbd8a7b341bd9b02, each with its lowest byte first.
HELLO: dict[Algorithm, str] = {
    "MD5": "5d41402abc4b2a76b9719d911017c592",
    "SHA256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    "SHA384": "59e1748777448c69de6b800d7a33bbfb9ff1b463e44354c3553bcdb9c666fa90125a3c79f90397bdf5f6a13de828684f",
    "SHA512": "9b71d224bd62f3785d96d46ad3ea3d73319bfbc2890caadae2dff72519673ca7"
    "2323c3d99ba5c11d7c7acc6e14b8c5da0c4663475c2e5c3adef46f73bcdec043",
    "CRC32": "86a61036",
    "MURMUR3_32": "47fa8b24",
    "MURMUR3_128": "029bbd41b3a7d8cb191dae486a901e5b",
}


@pytest.mark.spec("TB-S37")
@pytest.mark.parametrize("algorithm", get_args(Algorithm))
def test_known_values(algorithm: Algorithm) -> None:
    assert checksum(algorithm, b"hello") == HELLO[algorithm]
    assert len(checksum(algorithm, b"")) == len(HELLO[algorithm])
