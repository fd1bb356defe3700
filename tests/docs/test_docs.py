"""Documents cannot lie: what can be run is run, what can be listed is listed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from presign_proxy import Signer
from presign_proxy.cli.main import main
from presign_proxy.config.load import load
from presign_proxy.config.presets.builtin import providers
from presign_proxy.config.presets.model import HostVariable, Preset, PresetAuth
from presign_proxy.config.schema.config import AdminConfig, AuditConfig, Config, GatewayConfig
from presign_proxy.config.schema.connections import (
    BasicAuth,
    BearerAuth,
    HeaderAuth,
    OAuth2Auth,
    PathAuth,
    PresignConnection,
    QueryAuth,
    SigningKeyEntry,
    SourceConnection,
)
from presign_proxy.errors import MESSAGE, STATUS
from support.deciding import NOW, SECRET, code, connection, registry, request
from support.documents import DOCS, README, block
from support.places import ROOT


def test_the_example_loads_as_it_is_and_grants_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    tmp_path.chmod(0o700)
    shutil.copyfile(ROOT / "config.example.yaml", path)
    path.chmod(0o600)
    loaded = load(path, {})
    assert sorted(loaded.registry.connections) == ["conn_intranet", "conn_openai", "pk_abc"]
    assert not any(one.enabled for one in loaded.registry.connections.values())


def run(directory: Path, *command: str, given: str = "", **environ: str) -> str:
    """What a command prints, in a directory and an environment of its own."""
    done = subprocess.run(
        command,
        cwd=directory,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "addon"), "HOME": str(directory)} | environ,
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_server_of_a_page_in_a_browser_signs_what_the_gateway_takes(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    presign = (sys.executable, "-m", "presign_proxy")
    run(tmp_path, *presign, "init")
    added = run(
        tmp_path, *presign, "connections", "add", "--preset", "github", given="ghp_0123456789abcdef\n"
    )
    signed = run(
        tmp_path,
        *(sys.executable, "-c", block(DOCS["jobs/browser.md"], "python")),
        SIGNING_SECRET=re.search(r"sk_\S+", added)[0],
    ).strip()
    target = signed.removeprefix("http://127.0.0.1:8080")
    asked = request(target, host="127.0.0.1:8080", listener=("127.0.0.1", 8080))
    assert code(asked, load(tmp_path / "config.yaml", {}).registry, int(time.time())) == "forward"


def verbs(group: click.Group, prefix: str = "presign") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if isinstance(found, click.Group):
            yield from verbs(found, f"{prefix} {name}")
        elif found is not None and not found.hidden:
            yield f"{prefix} {name}", found


def test_every_verb_and_every_option_is_documented() -> None:
    text = DOCS["command.md"]
    found = dict(verbs(main))
    assert len(found) > 15
    for name, command in found.items():
        assert name.split()[-1] in re.findall(r"[a-z-]+", text), name
        assert command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.name not in ("help", "config", "as_json"):
                assert re.search(rf"`[^`]*{parameter.opts[0]}\b", text), f"{name} {parameter.opts[0]}"


def test_every_verb_that_is_documented_exists() -> None:
    known = {name.removeprefix("presign ") for name, _ in verbs(main)}
    said = re.findall(r"`presign ((?:connections )?[a-z-]+)", DOCS["command.md"] + README)
    assert said
    assert set(said) <= known | {"connections"}


def test_the_commands_of_the_readme_are_those_of_the_makefile_and_of_ci() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    commands = list(re.findall(r"^make (\w+)$", README, re.MULTILINE))
    assert commands == ["run", "test"]
    contributing = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert set(re.findall(r"`make ([a-z-]+)", README + contributing)) | set(commands) <= targets
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
    AdminConfig,
    AuditConfig,
    GatewayConfig,
    PresignConnection,
    SourceConnection,
    SigningKeyEntry,
    BearerAuth,
    BasicAuth,
    HeaderAuth,
    PathAuth,
    OAuth2Auth,
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
    source = (ROOT / "addon/presign_proxy/mitm/addon.py").read_text("utf-8")
    for name in re.findall(r'"(presign_\w+)"', source):
        assert f"`{name}`" in DOCS["configuration.md"]
    for name in providers():
        assert f"`{name}`" in DOCS["presets.md"]


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
    assert "curl" not in done.stdout  # the gateway has stopped
    assert "The gateway has stopped" in done.stdout


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


def test_each_fault_that_is_documented_names_a_test_that_exists() -> None:
    section = (ROOT / "docs/running.md").read_text("utf-8").partition("\n### Faults")[2].partition("\n## ")[0]
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", section)
    assert len(named) > 20
    assert not [one for one in named if f"def {one[1]}(" not in (ROOT / one[0]).read_text("utf-8")]
