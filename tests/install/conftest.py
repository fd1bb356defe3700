"""Nothing but what is published, in empty environments, installed with the tools that people use.

Not part of the ordinary run, because it needs a package index: `make installed`.
"""

from __future__ import annotations

import venv
from pathlib import Path

import pytest

from support.distribution import build
from support.environments import bare_environment, run


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def pip_environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a new environment that holds the wheel and what the wheel asks for."""
    directory = tmp_path_factory.mktemp("pip") / "venv"
    venv.create(directory, with_pip=True)
    home = tmp_path_factory.mktemp("home")
    run(
        [str(directory / "bin/python"), "-m", "pip", "install", "-q", str(wheel)],
        bare_environment(home),
        home,
    )
    return directory / "bin"


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with uv and pipx, the newest ones."""
    directory = tmp_path_factory.mktemp("clients") / "venv"
    venv.create(directory, with_pip=True)
    home = tmp_path_factory.mktemp("home")
    pip = [str(directory / "bin/python"), "-m", "pip", "install", "-q", "uv", "pipx"]
    run(pip, bare_environment(home), home)
    return directory / "bin"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    return home
