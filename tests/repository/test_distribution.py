"""What is published runs by itself: everything it imports is declared, everything it needs is in it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from email.message import Message
from pathlib import Path

import pytest
from readme_renderer import markdown

from support.distribution import build, metadata_of, names_in, unpack
from support.places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
# Distributions that are imported under another name.
IMPORTED_AS = {"pyyaml": "yaml", "pyopenssl": "openssl"}


def imports_of(path: Path) -> set[str]:
    """Top-level names of packages from outside, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").partition(".")[0])
    return found - sys.stdlib_module_names - {"presign_proxy"}


def names(lines: list[str]) -> set[str]:
    found = {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower().replace("-", "_") for line in lines}
    return {IMPORTED_AS.get(name, name) for name in found}


REQUIRED = names(PROJECT["dependencies"])
EXTRAS = names([line for extra in PROJECT["optional-dependencies"].values() for line in extra])
# Imported only once a configuration or an option asks for the extra, and `try`ed there.
OF_EXTRAS = {
    "presign_proxy/core/aws_sigv4.py",
    "presign_proxy/serve/worker.py",
    "presign_proxy/limits/stores/redis_pipeline.py",
    "presign_proxy/limits/stores/redis.py",
}


def test_a_wheel_alone_has_everything_that_it_imports() -> None:
    found: set[str] = set()
    for path in sorted((ROOT / "addon").rglob("*.py")):
        name = path.relative_to(ROOT / "addon").as_posix()
        imported = {one.lower() for one in imports_of(path)}
        allowed = REQUIRED | EXTRAS if name in OF_EXTRAS else REQUIRED
        assert not imported - allowed, f"{name} imports what is not declared"
        assert name not in OF_EXTRAS or imported & EXTRAS, f"{name} needs no extra any more"
        found |= imported
    assert sorted((REQUIRED | EXTRAS) - found) == [], "declared and never imported"


# What README.md promises to have wheels for: platforms by what stands in the name of a wheel.
PLATFORMS = {
    "Linux on x86-64": r"manylinux\w*x86_64",
    "Linux on ARM64": r"manylinux\w*aarch64",
    "macOS on Apple silicon": r"macosx\w*(arm64|universal2)",
}
ELSEWHERE = {"mitmproxy-linux": "Linux", "mitmproxy-macos": "macOS"}


@pytest.mark.parametrize("python", ["312", "313", "314"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_nobody_needs_a_compiler(platform: str, python: str) -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))
    run = {
        line.partition("==")[0].strip(): line.partition(";")[2]
        for line in (ROOT / "requirements/serve.txt").read_text("utf-8").splitlines()
        if "==" in line
    }
    fits = re.compile(rf"-cp{python}-cp{python}-|-cp3\d+-abi3-|-py3-none-")
    for package in lock["package"]:
        marker = run.get(package["name"])
        if marker is None or ELSEWHERE.get(package["name"], platform) not in platform:
            continue
        if python == "314" and "python_full_version < '3.14'" in marker:
            continue
        wheels = [one["url"].rpartition("/")[2] for one in package.get("wheels", [])]
        assert any(
            one.endswith("-none-any.whl") or (fits.search(one) and re.search(PLATFORMS[platform], one))
            for one in wheels
        ), package["name"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    return metadata_of(wheel)


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: Path) -> None:
    package = {
        path.relative_to(ROOT / "addon").as_posix()
        for path in (ROOT / "addon/presign_proxy").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    held = {name for name in names_in(wheel) if ".dist-info/" not in name}
    assert {name for name in held if name.endswith(".data/data/share/man/man1/presign.1")}
    assert {name for name in held if ".data/" not in name} == package | {"presign_proxy/config.example.yaml"}


def test_the_source_archive_is_enough_to_build_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    tree = unpack(build("sdist", tmp_path / "sdist"), tmp_path / "unpacked")
    again = build("wheel", tmp_path / "wheel", tree)
    assert names_in(again) == names_in(wheel)
    assert metadata_of(again).as_string() == metadata_of(wheel).as_string()
    for name in ("Makefile", "tools/setup", "uv.lock", "requirements/test.txt", "tests/conftest.py", "docs"):
        assert (tree / name).exists(), name


def test_the_readme_renders_on_a_package_index(metadata: Message) -> None:
    assert metadata["Description-Content-Type"] == "text/markdown"
    text = metadata.get_payload()
    assert isinstance(text, str)
    page = markdown.render(text)
    assert page is not None
    links = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert len(links) > 10
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


def test_every_absolute_link_to_the_repository_leads_to_a_file(metadata: Message) -> None:
    """A package index shows the README alone; its links were made from relative ones."""
    base = f"{PROJECT['urls']['Homepage']}/blob/main/"
    links = re.findall(re.escape(base) + r"([^)#\s]+)", str(metadata.get_payload()))
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_what_a_package_index_shows_beside_the_readme(metadata: Message) -> None:
    urls = dict(line.split(", ", 1) for line in metadata.get_all("Project-URL", []))
    assert urls.keys() >= {"Homepage", "Documentation", "Changelog", "Issues"}
    assert all(url.startswith("https://") for url in urls.values())
    versions = {
        line.rpartition(" ")[2] for line in metadata.get_all("Classifier", []) if "Python :: 3." in line
    }
    assert versions == {"3.12", "3.13", "3.14"}
    assert metadata["Requires-Python"] == ">=3.12"
