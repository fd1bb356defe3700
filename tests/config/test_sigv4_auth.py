"""`auth: {type: aws_sigv4}` in a file: what it needs, what it takes from the host, what is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.config.load import load
from presign_proxy.config_problems import ConfigError
from presign_proxy.core.aws_sigv4 import SigV4Credential
from support.asking import SECRET
from support.config import write_config

KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
AUTH = {"type": "aws_sigv4", "access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": KEY}
BEDROCK = "https://bedrock-runtime.eu-west-1.amazonaws.com"


def written(tmp_path: Path, upstream: str, auth: dict[str, Any], **more: Any) -> Path:
    auth = {name: value for name, value in auth.items() if value is not None}
    entry = {"upstream": upstream, "auth": auth, "signing_keys": [{"secret": SECRET}], **more}
    return write_config({"connections": {"conn": entry}}, tmp_path)


def credential(tmp_path: Path, upstream: str = BEDROCK, **changes: Any) -> SigV4Credential:
    found = load(written(tmp_path, upstream, AUTH | changes), {"A": "AKIAOTHER"})
    injector = found.registry.connections["conn"].injector
    assert isinstance(injector, SigV4Credential)
    return injector


def problems(tmp_path: Path, upstream: str = BEDROCK, **changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load(written(tmp_path, upstream, AUTH | changes), {})
    found = [str(problem) for problem in error.value.problems]
    assert KEY not in str(found)
    return found


def test_service_and_region_are_those_of_the_host_unless_they_are_given(tmp_path: Path) -> None:
    found = credential(tmp_path)
    assert (found.service, found.region, found.client_scope) == ("bedrock", "eu-west-1", False)
    found = credential(tmp_path, service="s3", region="us-east-2", client_scope=True, max_body=7)
    assert (found.service, found.region, found.client_scope, found.max_body) == ("s3", "us-east-2", True, 7)
    found = credential(tmp_path, "https://minio.example:9000", service="s3", region="eu-west-1")
    assert (found.service, found.region) == ("s3", "eu-west-1")


def test_keys_come_from_where_they_are_kept(tmp_path: Path) -> None:
    found = credential(tmp_path, access_key_id={"env": "A"}, session_token={"exec": ["print-token"]})
    assert found.access_key_id.reveal() == "AKIAOTHER"
    assert len(found.secrets()) == 3


@pytest.mark.parametrize(
    ("upstream", "changes", "said"),
    [
        ("https://minio.example", {"region": "eu-west-1"}, "auth.service: cannot be told from the host"),
        ("https://minio.example", {"service": "s3"}, "auth.region: cannot be told from the host"),
        (BEDROCK, {"secret_access_key": None}, "auth.secret_access_key: is required"),
        (BEDROCK, {"access_key_id": None}, "auth.access_key_id: is required"),
        (BEDROCK, {"service": "s3/x"}, "auth.service: "),
        (BEDROCK, {"region": "eu west"}, "auth.region: "),
        (BEDROCK, {"max_body": 33554433}, "auth.max_body: has to be 33554432 or less"),
        (BEDROCK, {"max_body": -1}, "auth.max_body: has to be 0 or more"),
        (BEDROCK, {"secret_access_key": f"{KEY} x"}, "auth.secret_access_key: holds characters that no key"),
        (BEDROCK, {"session_token": "ü"}, "auth.session_token: holds characters that no key"),
        (BEDROCK, {"secret_access_key": {"env": "NOT_SET"}}, "auth.secret_access_key: "),
        (BEDROCK, {"token": "x"}, "auth.token: is not a key that is known here"),
        ("http://bedrock-runtime.eu-west-1.amazonaws.com", {}, "upstream: is not https"),
    ],
)
def test_what_is_wrong_is_one_clear_error(
    tmp_path: Path, upstream: str, changes: dict[str, Any], said: str
) -> None:
    (line,) = problems(tmp_path, upstream, **changes)
    assert f"connections.conn.{said}" in line
    assert "config.yaml:" in line


def test_sources_are_not_signed(tmp_path: Path) -> None:
    entry = {
        "scheme": "source",
        "mode": "signed",
        "allowed_origins": ["https://b.s3.eu-west-1.amazonaws.com"],
    }
    entry |= {"formats": ["jpg"], "auth": AUTH, "signing_keys": [{"secret": SECRET}]}
    with pytest.raises(ConfigError, match="aws_sigv4 needs an upstream"):
        load(write_config({"connections": {"pk": entry}}, tmp_path), {})


def test_a_signing_secret_that_is_the_secret_access_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is the credential itself"):
        load(written(tmp_path, BEDROCK, AUTH, signing_keys=[{"secret": KEY}]), {})


def test_without_botocore_the_gateway_names_the_extra_and_does_not_start(tmp_path: Path) -> None:
    """As `pip install presign-proxy` leaves it. Connections of other types need no botocore."""
    (tmp_path / "lacking").mkdir()
    (tmp_path / "lacking" / "botocore.py").write_text("raise ImportError('not installed')\n")
    path = os.pathsep.join([str(tmp_path / "lacking"), *filter(None, [os.environ.get("PYTHONPATH")])])

    def run(verb: str, *options: str, auth: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        config = written(tmp_path, BEDROCK, auth)
        command = [sys.executable, "-m", "presign_proxy", verb, "--config", str(config), *options]
        env = os.environ | {"PYTHONPATH": path}
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)

    for verb, options in (("check", ()), ("serve", ("--listen", "127.0.0.1:0"))):
        done = run(verb, *options, auth=AUTH)
        assert done.returncode == 1, done
        said = done.stdout + done.stderr
        assert "connections.conn.auth.type: aws_sigv4 needs botocore" in said
        assert "pip install 'presign-proxy[aws]'" in said
        assert "Traceback" not in said
        assert KEY not in said
    assert run("check", auth={"type": "bearer", "token": KEY}).returncode == 0
