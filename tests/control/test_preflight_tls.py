"""A certificate that cannot serve is found before anything starts."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from server.config.load import parse_config
from server.control.preflight import Problem, preflight
from server.errors import ConfigError
from tests.fakes.certificates import make_certificate

ENGINE = {"name": "a", "model": "demo", "url": "http://127.0.0.1:1", "precision": "bf16"}


def data(**gateway: Any) -> dict[str, Any]:
    return {"gateway": gateway, "engines": [ENGINE]}


def problems(folder: Path, **gateway: Any) -> list[Problem]:
    config = parse_config(data(**gateway), source=folder / "wattgate.yaml", environ={})
    return [one for one in preflight(config, environ={})[1] if one.where.startswith("gateway.")]


def test_certificate_beside_the_configuration_is_found_and_makes_the_url_https(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    settings = {"tls_certificate": "cert.pem", "tls_key": "key.pem"}
    assert problems(tmp_path, **settings) == []
    config = parse_config(data(**settings), source=tmp_path / "wattgate.yaml", environ={})
    assert config.gateway.tls_certificate == tmp_path / "cert.pem"
    assert config.gateway.tls_key == tmp_path / "key.pem"
    assert config.gateway.url == "https://127.0.0.1:8080"


def test_without_a_certificate_the_url_is_http(tmp_path: Path) -> None:
    config = parse_config(data(host="::1"), source=tmp_path / "wattgate.yaml", environ={})
    assert config.gateway.url == "http://[::1]:8080"


@pytest.mark.parametrize("name", ["tls_certificate", "tls_key"])
def test_one_without_the_other_is_a_wrong_setting(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="set both or neither"):
        parse_config(data(**{name: "x.pem"}), source=tmp_path / "wattgate.yaml", environ={})


@pytest.mark.parametrize("name", ["tls_certificate", "tls_key"])
def test_file_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    make_certificate(tmp_path)
    (found,) = problems(tmp_path, **{"tls_certificate": "cert.pem", "tls_key": "key.pem", name: "gone.pem"})
    assert found.where == f"gateway.{name}"
    assert f"{tmp_path / 'gone.pem'} cannot be read" in found.message


def test_file_that_is_no_certificate_is_told(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    (tmp_path / "cert.pem").write_text("no certificate", encoding="ascii")
    (found,) = problems(tmp_path, tls_certificate="cert.pem", tls_key="key.pem")
    assert "are not a certificate and its private key" in found.message


def test_key_of_another_certificate_is_told(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    make_certificate(tmp_path)
    make_certificate(tmp_path / "other")
    (found,) = problems(tmp_path, tls_certificate="cert.pem", tls_key="other/key.pem")
    assert "are not a certificate and its private key" in found.message


def test_key_with_a_password_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    command = "openssl ec -aes256 -passout pass:secret -in key.pem -out locked.pem"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    (found,) = problems(tmp_path, tls_certificate="cert.pem", tls_key="locked.pem")
    assert "without a password" in found.message
