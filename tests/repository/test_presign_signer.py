"""presign-signer, the small distribution for those who only sign, installed as its users have it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.version import VERSION
from support.distribution import build, metadata_of, unpack
from support.places import ROOT, TESTS
from support.shell import ADDON

PROJECT = ROOT / "signer"
VECTORS = json.loads((TESTS / "data" / "seed_vectors.json").read_text("utf-8"))
HEAVY = ("mitmproxy", "pydantic", "yaml", "cryptography", "presign_proxy")
ELSEWHERE = ("serve", "init", "connections", "explain", "verify", "schema")


@dataclass(frozen=True)
class Installed:
    """An environment with presign-signer and click, and nothing else."""

    wheel: Path
    bin: Path

    def run(self, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        clean = {"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8", "HOME": str(self.wheel.parent)}
        return subprocess.run(
            [str(self.bin / argv[0]), *argv[1:]],
            capture_output=True,
            text=True,
            cwd=self.wheel.parent,
            env={**clean, **env},
        )

    def presign(self, *argv: str, code: int = 0, **env: str) -> str:
        """What the command prints, to standard error where it fails."""
        done = self.run("presign", *argv, **env)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stderr if code else done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    directory = tmp_path_factory.mktemp("signer")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(build, cwd=PROJECT, check=True, capture_output=True)
    (wheel,) = directory.glob("*.whl")
    venv.create(directory / "venv", with_pip=True)
    python = directory / "venv" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, cwd=directory)
    (site,) = (directory / "venv" / "lib").glob("python3*/site-packages")
    click = importlib.util.find_spec("click")
    assert click is not None
    assert click.origin is not None
    shutil.copytree(Path(click.origin).parent, site / "click")
    return Installed(wheel, python.parent)


_SIGN_ALL = """
import importlib.util, json, sys
from presign_signer import Signed, Signer, Terms
heavy = [name for name in json.loads(sys.argv[1]) if importlib.util.find_spec(name)]
vectors, made = json.load(open(sys.argv[2], encoding="utf-8")), []
for one in vectors["presign"]:
    signer = Signer(one["connection_id"], one["signing_secret"])
    grant = signer.sign(one["methods"], one["paths"], expires_at=one["expires"])
    assert isinstance(grant, Signed)
    made.append([grant.url(one["path"], ""), grant.signature])
for one in vectors["source_url"]:
    signer = Signer(one["project_key"], one["signing_secret"])
    grant = signer.sign_source(one["source_url"], one["format"], expires_at=one["expires"])
    made.append([grant.url(""), grant.signature])
tops = {name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names
others = sorted(tops - {"__main__", "sitecustomize"})  # Debian's Python has one
print(json.dumps([heavy, others, made]))
"""


@pytest.mark.slow
def test_it_signs_every_url_of_the_seeds_with_nothing_else_installed(installed: Installed) -> None:
    vectors = TESTS / "data" / "seed_vectors.json"
    done = installed.run("python", "-I", "-c", _SIGN_ALL, json.dumps(HEAVY), str(vectors))
    assert done.returncode == 0, done.stderr
    heavy, others, made = json.loads(done.stdout)
    assert heavy == []
    assert others == ["presign_signer"]
    wanted = [*VECTORS["presign"], *VECTORS["source_url"]]
    assert [signature for _, signature in made] == [vector["signature"] for vector in wanted]
    assert [url for url, _ in made] == [as_python_writes(vector["url"]) for vector in wanted]


def as_python_writes(url: str) -> str:
    """The URL as the published Python recipe writes it; the vectors are JavaScript's, which keeps `*`."""
    path, mark, query = url.partition("?")
    return path + mark + query.replace("*", "%2A")


@pytest.mark.parametrize("vector", VECTORS["presign"][:2], ids=lambda vector: vector["connection_id"])
def test_its_command_prints_the_url_of_the_seeds(installed: Installed, vector: dict[str, Any]) -> None:
    signed = installed.presign(
        *("sign", vector["connection_id"], vector["path"], "--secret-env", "SIGNING"),
        *("--methods", ",".join(vector["methods"]), "--paths", ",".join(vector["paths"])),
        *("--expires", "2030-01-01T00:00:00Z", "--base", "https://presign.click"),
        SIGNING=vector["signing_secret"],
    )
    assert vector["expires"] == 1893456000
    assert signed == f"https://presign.click{as_python_writes(vector['url'])}\n"


def test_its_command_signs_from_a_file_converts_and_completes(installed: Installed, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("sk_your_secret\n")
    url = installed.presign("sign", "conn_a", "v1/models", "--secret-file", str(secret)).strip()
    token = installed.presign("convert", url).strip()
    assert token.startswith("ps1_")
    path = ("--as", "url", "--path", "v1/models")
    assert installed.presign("convert", token, *path).strip() == url
    assert "_PRESIGN_COMPLETE" in installed.presign("completion", "zsh")


def test_its_command_reads_no_configuration_that_lies_about(installed: Installed, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("connections: {")
    url = installed.presign(
        "sign", "conn_a", "v1/a", "--secret-env", "S", "--config", str(config), S="s" * 32
    )
    assert installed.presign("convert", url.strip(), "--config", str(config)).startswith("ps1_")


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_verb_that_it_has_not_says_where_it_is(installed: Installed, name: str) -> None:
    for rest in ((), ("--help",), ("x", "--option", "y")):
        said = installed.presign(name, *rest, code=2)
        assert (
            f"this is presign-signer, which has no `presign {name}`: `pip install presign-proxy` has it"
            in said
        )
    assert not re.search(rf"^ +(presign )?{name}\b", installed.presign("--help"), re.MULTILINE)


def test_to_sign_by_connection_it_says_what_to_install(installed: Installed) -> None:
    said = installed.presign("sign", "conn_a", "v1/a", code=2)
    assert "this is presign-signer" in said
    assert "--secret-env" in said
    assert "pip install presign-proxy" in said


def test_a_verb_that_nobody_has_is_unknown(installed: Installed) -> None:
    assert "No such command" in installed.presign("sing", code=2)


def test_beside_presign_proxy_its_command_is_the_whole_one(installed: Installed) -> None:
    whole = installed.presign("--help", PYTHONPATH=str(ADDON))
    assert re.search(r"^ +serve ", whole, re.MULTILINE)
    assert "presign-signer" in installed.presign("--help")


def test_both_distributions_have_one_version(installed: Installed) -> None:
    versions = {
        tomllib.loads((directory / "pyproject.toml").read_text("utf-8"))["project"]["version"]
        for directory in (ROOT, PROJECT)
    }
    assert versions == {VERSION}
    assert importlib.metadata.version("presign-proxy") == VERSION
    assert installed.presign("--version").strip() in versions


def test_its_wheel_holds_the_files_of_presign_proxy_as_they_are(installed: Installed) -> None:
    own = {"presign_signer/entry.py": "entry.py", "presign_signer/cli/configured.py": "configured.py"}
    with zipfile.ZipFile(installed.wheel) as wheel:
        names = {name for name in wheel.namelist() if name.startswith("presign_signer/")}
        for name in names:
            inside = name.removeprefix("presign_signer/")
            source = PROJECT / own[name] if name in own else ADDON / "presign_proxy" / inside
            assert wheel.read(name) == source.read_bytes(), name
    assert set(own) < names
    assert not [name for name in names if "pycache" in name]


def test_its_source_archive_is_enough_to_build_the_same_wheel(installed: Installed, tmp_path: Path) -> None:
    tree = unpack(build("sdist", tmp_path / "sdist", PROJECT), tmp_path / "unpacked")
    again = build("wheel", tmp_path / "wheel", tree)
    assert contents(again) == contents(installed.wheel)


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}


def test_what_a_package_index_shows_of_it(installed: Installed) -> None:
    metadata = metadata_of(installed.wheel)
    urls = dict(line.split(", ", 1) for line in metadata.get_all("Project-URL", []))
    assert urls.keys() >= {"Homepage", "Documentation", "Changelog", "Issues"}
    base = f"{urls['Homepage']}/blob/main/"
    files = [url.removeprefix(base) for url in urls.values() if url.startswith(base)]
    assert files
    assert [file for file in files if not (ROOT / file).is_file()] == []
    assert metadata.get_all("License-File") == ["LICENSE"]
    licence = next(data for name, data in contents(installed.wheel).items() if name.endswith("/LICENSE"))
    assert licence == (ROOT / "LICENSE").read_bytes()


_IMPORT_ALL = """
import importlib, pkgutil, sys, presign_signer
for module in pkgutil.walk_packages(presign_signer.__path__, "presign_signer."):
    importlib.import_module(module.name)
"""


def test_every_module_of_its_wheel_can_be_imported(installed: Installed) -> None:
    """A module that one of them needs at its top cannot be missing from the list."""
    done = installed.run("python", "-I", "-c", _IMPORT_ALL)
    assert done.returncode == 0, done.stderr
