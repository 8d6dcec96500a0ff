"""A certificate for localhost, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.services import require


def certificate(folder: Path) -> tuple[str, str]:
    """Certificate and key as files in that folder; its own authority."""
    made, key = str(folder / "cert.pem"), str(folder / "key.pem")
    subprocess.run(
        [
            require("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", key, "-out", made, "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return made, key
