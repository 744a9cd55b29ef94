"""A self-made certificate for 127.0.0.1."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["make_certificate"]


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """PEM files with a certificate, which is its own authority, and its key."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subject = "-subj /CN=wattgate-test -addext subjectAltName=IP:127.0.0.1"
    command = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 {subject}"
    subprocess.run([*command.split(), "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key
