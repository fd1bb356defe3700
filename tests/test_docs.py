"""Documents cannot lie: what can be run is run, what can be listed is listed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from presign_proxy import Signer
from presign_proxy.config import load
from presign_proxy.errors import MESSAGE, STATUS
from presign_proxy.presets import providers
from presign_proxy.presets.model import HostVariable, Preset, PresetAuth
from presign_proxy.schema import (
    BasicAuth,
    BearerAuth,
    Config,
    GatewayConfig,
    HeaderAuth,
    PresignConnection,
    QueryAuth,
    SigningKeyEntry,
    SourceConnection,
)
from support.deciding import NOW, SECRET, code, connection, registry, request
from support.documents import DOCS, README, ROOT, block


def test_the_example_loads_as_it_is_and_grants_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    tmp_path.chmod(0o700)
    shutil.copyfile(ROOT / "config.example.yaml", path)
    path.chmod(0o600)
    loaded = load(path, {})
    assert sorted(loaded.registry.connections) == ["conn_intranet", "conn_openai", "pk_abc"]
    assert not any(one.enabled for one in loaded.registry.connections.values())


def test_the_first_url_of_the_readme_works(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    tmp_path.chmod(0o700)
    path.touch(mode=0o600)
    path.write_text(block(README, "yaml"))
    (tmp_path / "signing_secret.key").write_text(SECRET + "\n")
    loaded = load(path, {"GITHUB_TOKEN": "ghp_0123456789"})
    done = subprocess.run(
        [sys.executable, "-c", block(README, "python")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "addon")},
        capture_output=True,
        text=True,
        check=True,
    )
    target = done.stdout.strip().removeprefix("http://127.0.0.1:8080")
    asked = request(target, host="127.0.0.1:8080", listener=("127.0.0.1", 8080))
    assert code(asked, loaded.registry, int(time.time())) == "forward"


def test_the_commands_of_the_readme_are_those_of_the_makefile_and_of_ci() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    commands = list(re.findall(r"^make (\w+)$", README, re.MULTILINE))
    assert commands == ["run", "test"]
    assert set(commands) <= targets
    assert re.search(r"^(exec )?make test$", (ROOT / ".ci/run").read_text("utf-8"), re.MULTILINE)


def granted(url: str) -> bool:
    target = url.strip().removeprefix("http://presign.local")
    return code(request(target), registry(connection()), int(time.time())) == "forward"


def test_the_signer_refuses_what_the_gateway_would() -> None:
    signer = Signer("conn", SECRET)
    assert granted(signer.sign(["GET"], ["/v1/*"], expires_at=int(time.time()) + 9).url("v1/models"))
    for methods, paths, expires in (
        (["GET"], ["a,b"], NOW),
        (["GET"], ["a\nb"], NOW),
        (["get"], ["a"], NOW),
        ([], ["a"], NOW),
        (["GET"], [], NOW),
        (["GET", "*"], ["a"], NOW),
        (["GET"], ["a", "*"], NOW),
        (["GET"], ["a"], 10**12),
        (["GET"], ["a"], -1),
    ):
        with pytest.raises(ValueError):
            signer.sign(methods, paths, expires_at=expires)
    with pytest.raises(ValueError):
        Signer("bad id", SECRET)
    assert SECRET not in repr(vars(signer))


def test_every_code_is_documented_with_its_status() -> None:
    rows = dict(re.findall(r"^\| ([0-9 ]+) \| `(\w+)` \|", DOCS["answers.md"], re.MULTILINE))
    documented = {name: statuses.split() for statuses, name in rows.items()}
    documented |= {
        name: statuses.split()
        for statuses, name in re.findall(r"^\| ([0-9 ]+) \| `(\w+)` \|", DOCS["answers.md"], re.MULTILINE)
    }
    assert sorted(documented) == sorted(STATUS) == sorted(MESSAGE)
    assert all(str(STATUS[name]) in documented[name] for name in STATUS)


MODELS = (
    Config,
    GatewayConfig,
    PresignConnection,
    SourceConnection,
    SigningKeyEntry,
    BearerAuth,
    BasicAuth,
    HeaderAuth,
    QueryAuth,
    Preset,
    PresetAuth,
    HostVariable,
)


@pytest.mark.parametrize("model", MODELS)
def test_every_key_is_documented(model) -> None:
    text = DOCS["configuration.md"]
    for name in model.model_fields:
        assert re.search(rf"`[^`]*\b{name}\b[^`]*`|^## {name}", text, re.MULTILINE), name


def test_every_option_and_preset_is_documented() -> None:
    source = (ROOT / "addon/presign_proxy/addon.py").read_text("utf-8")
    for name in re.findall(r'"(presign_\w+)"', source):
        assert f"`{name}`" in DOCS["configuration.md"]
    for name in providers():
        assert f"`{name}`" in DOCS["presets.md"]


def test_links_between_documents_lead_somewhere() -> None:
    for name, text in {"../README.md": README, **DOCS}.items():
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert ((ROOT / "docs" / name).parent / link).exists(), (name, link)


def test_yaml_in_the_documents_is_yaml() -> None:
    for text in (README, *DOCS.values()):
        for _, body in re.findall(r"^( *)```yaml\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
            assert yaml.safe_load(body)


def test_the_demo_shows_one_granted_and_one_refused_request() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "presign_proxy", "demo", "--port", "0", "--once"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "addon")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"GET v1/hello +200 .*hello, holder of the key", done.stdout)
    assert re.search(r"GET v1/admin +403 .*path_not_allowed", done.stdout)
    assert "sk-demo" not in done.stdout + done.stderr


MISTAKES = [
    ("GET", ["a"], NOW),
    (["GET"], "v1/models", NOW),
    (["GET"], ["a"], NOW + 0.5),
    (["GET"], ["a"], True),
    (["GET"], ["a" * 9000], NOW),
]


@pytest.mark.parametrize(("methods", "paths", "expires"), MISTAKES)
def test_a_slip_with_the_signer_is_an_error_and_not_another_grant(methods, paths, expires) -> None:
    with pytest.raises(ValueError):
        Signer("conn", SECRET).sign(methods, paths, expires_at=expires)


def test_a_grant_that_is_printed_cannot_be_used() -> None:
    grant = Signer("conn", SECRET).sign(["GET"], ["a"], expires_at=NOW)
    assert grant.signature not in f"{grant} {grant!r}"
    for path in ("a#b", "a b", "https://evil.test/", "//evil.test"):
        with pytest.raises(ValueError):
            grant.url(path)
    with pytest.raises(ValueError):
        Signer("conn", "")
