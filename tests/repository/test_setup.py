"""The set-up of a work tree: what tools/setup makes anew, what it keeps, and what it may not install.

It runs in a tree of its own. Only the commands that would download something are played by scripts.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.places import ROOT
from support.process import free_port
from support.programs import PROGRAMS, find, only
from support.puppet import eventually
from support.shell import Shell, Terminal

LOCKS = ("uv.lock", "requirements/run.txt", "requirements/test.txt", "tests/support/node/package-lock.json")
COREUTILS = ("sh", "env", "cat", "cksum", "dirname", "grep", "rm", "awk", "mktemp", "mkdir", "ln")
UV = f"""echo "uv $1 $*" >>calls
if [ "$1" = sync ]; then mkdir -p .venv/bin && ln -sf '{sys.executable}' .venv/bin/python; fi
if [ -e "$HOME/interrupted" ]; then exit 1; fi
"""


class Tree:
    """A clone, as far as tools/setup looks at it; `bin` is all of its PATH."""

    def __init__(self, directory: Path) -> None:
        self.path, self.home = directory / "a b", directory
        self.bin = only(directory / "bin", *COREUTILS)
        for name in (*LOCKS, "tools/setup", "tests/support/programs.py"):
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.path / name)
        self.play("uv", UV)

    def play(self, name: str, script: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{script}")
        (self.bin / name).chmod(0o755)

    def setup(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        argv = [str(self.path / "tools/setup"), *arguments]
        env = {"PATH": str(self.bin), "HOME": str(self.home), **settings}
        (self.path / "calls").write_text("")
        return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)

    def calls(self) -> list[str]:
        return (self.path / "calls").read_text().splitlines()

    def syncs(self) -> list[str]:
        return [call for call in self.calls() if call.startswith("uv sync ")]

    def mark(self) -> Path:
        """Something that is gone when .venv was made anew."""
        (self.path / ".venv/kept").touch()
        return self.path / ".venv/kept"


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    return Tree(tmp_path)


def test_make_run_installs_nothing_of_the_tests(tree: Tree) -> None:
    assert tree.setup("run").returncode == 0
    assert "--no-dev" in tree.syncs()[0]
    assert "npm" not in tree.setup("run").stderr
    assert tree.calls() == []


def test_make_test_after_make_run_adds_to_what_is_there(tree: Tree) -> None:
    tree.setup("run")
    kept = tree.mark()
    assert tree.setup("test").returncode == 0
    assert "--no-dev" not in tree.syncs()[0]
    assert kept.exists()
    for kind in ("test", "run"):
        tree.setup(kind)
        assert tree.calls() == []


def test_make_run_after_make_test_changes_nothing(tree: Tree) -> None:
    tree.setup()
    tree.setup("run")
    assert tree.calls() == []


@pytest.mark.parametrize(
    ("lock", "anew"), [("requirements/run.txt", {"run", "test"}), ("requirements/test.txt", {"test"})]
)
@pytest.mark.parametrize("kind", ["run", "test"])
def test_a_changed_lock_makes_anew_what_it_is_for(lock: str, anew: set[str], kind: str, tree: Tree) -> None:
    tree.setup("test")
    with (tree.path / lock).open("a") as file:
        file.write("# changed\n")
    tree.setup(kind)
    assert bool(tree.syncs()) == (kind in anew)


def test_what_an_interrupted_set_up_left_behind_is_made_anew(tree: Tree) -> None:
    tree.setup("run")
    kept = tree.mark()
    (tree.home / "interrupted").touch()
    assert tree.setup("test").returncode == 1
    (tree.home / "interrupted").unlink()
    assert tree.setup("run").returncode == 0
    assert tree.calls() == []
    assert tree.setup("test").returncode == 0
    assert not kept.exists()


def test_a_moved_clone_is_made_anew(tree: Tree, tmp_path: Path) -> None:
    """Scripts in .venv hold its path."""
    tree.setup("test")
    tree.path = tree.path.rename(tmp_path / "moved")
    tree.setup("run")
    assert len(tree.syncs()) == 1


@pytest.mark.needs("flock")
def test_make_run_and_make_test_at_the_same_second_fill_one_after_the_other(tree: Tree) -> None:
    (tree.bin / "flock").symlink_to(find("flock") or "")
    # The first waits within its set-up until the second has been started, and has had to wait.
    tree.play("uv", f'if [ -p "$HOME/go" ]; then echo >"$HOME/begun"; cat "$HOME/go"; fi\n{UV}')
    os.mkfifo(tree.home / "go")
    argv, env = str(tree.path / "tools/setup"), {"PATH": str(tree.bin), "HOME": str(tree.home)}
    with subprocess.Popen([argv, "run"], env=env) as first:
        assert eventually((tree.home / "begun").exists, 10)
        with subprocess.Popen([argv, "test"], env=env, stderr=subprocess.PIPE, text=True) as second:
            assert second.stderr is not None
            assert "waiting" in second.stderr.readline()
            (tree.home / "go").rename(tree.home / "gone")
            (tree.home / "gone").write_text("")
            assert (first.wait(20), second.wait(20)) == (0, 0)
    assert ["--no-dev" in call for call in tree.syncs()] == [True, False]
    tree.setup("run")
    tree.setup("test")
    assert tree.calls() == []


def test_an_unknown_argument_is_refused(tree: Tree) -> None:
    done = tree.setup("--everything")
    assert (done.returncode, tree.calls()) == (2, [])
    assert "--everything" in done.stderr


@pytest.mark.slow
def test_without_a_network_one_sentence_says_what_is_missing(tree: Tree) -> None:
    (tree.bin / "uv").unlink()
    tree.play("python3", f'exec {sys.executable} "$@"\n')
    done = tree.setup("run", PIP_INDEX_URL=f"http://127.0.0.1:{free_port()}/", PIP_RETRIES="0")
    assert done.returncode == 1
    *_, last = done.stderr.splitlines()
    assert last.startswith("setup: the packages could not be installed")
    assert "no package index was reached" in last
    assert "Traceback" not in done.stderr
    assert not (tree.path / ".venv/stamp").exists()


# -- the programs ---------------------------------------------------------------------------------------


def wanted() -> set[str]:
    return {one.package for one in PROGRAMS.values() if one.in_all and one.package}


def test_root_installs_every_program_of_the_table_that_is_missing(tree: Tree) -> None:
    tree.play("id", "echo 0\n")
    tree.play("apt-get", 'echo "apt-get $*" >>calls\n')
    assert tree.setup("--all").returncode == 0
    update, install = (call for call in tree.calls() if call.startswith("apt-get"))
    assert update == "apt-get update -qq"
    assert set(install.split()) - {"apt-get", "install", "-y", "-qq", "--no-install-recommends"} == wanted()


def test_lists_that_cannot_be_fetched_do_not_keep_it_from_trying(tree: Tree) -> None:
    tree.play("id", "echo 0\n")
    tree.play("apt-get", 'echo "apt-get $*" >>calls\n[ "$1" != update ]\n')
    assert tree.setup("--all").returncode == 0
    assert any(call.startswith("apt-get install") for call in tree.calls())


def test_a_package_that_this_release_lacks_does_not_cost_the_others(tree: Tree) -> None:
    """Ubuntu has no chromium-driver, and apt-get installs nothing if it lacks one of several."""
    tree.play("id", "echo 0\n")
    lacks = 'case " $* " in *" install "*chromium-driver*) exit 100 ;; esac\n'
    tree.play("apt-get", f'echo "apt-get $*" >>calls\n{lacks}')
    done = tree.setup("--all")
    assert done.returncode == 1
    assert "could not install chromium-driver;" in done.stderr
    alone = {call.split()[-1] for call in tree.calls() if call.startswith("apt-get install")}
    assert alone >= wanted() - {"chromium-driver"}


def test_a_user_who_may_not_install_is_told_which_packages_to_ask_for(tree: Tree) -> None:
    tree.play("id", "echo 1000\n")
    tree.play("sudo", "exit 1\n")
    tree.play("apt-get", 'echo "apt-get $*" >>calls\n')
    done = tree.setup("--all")
    assert done.returncode == 1
    assert not any(call.startswith("apt-get") for call in tree.calls())
    asked = done.stderr.partition("ask for: apt-get install ")[2].split()
    assert set(asked) == wanted()
    assert (tree.path / ".venv/stamp").exists()  # what can be done without is done


def test_a_user_with_sudo_installs(tree: Tree) -> None:
    tree.play("id", "echo 1000\n")
    tree.play("sudo", '[ "$1" = -n ] && shift && exec "$@"\n')
    tree.play("true", "exit 0\n")
    tree.play("apt-get", 'echo "apt-get $*" >>calls\n')
    assert tree.setup("--all").returncode == 0
    assert any(call.startswith("apt-get install") for call in tree.calls())


def test_a_machine_without_apt_says_what_debian_calls_them(tree: Tree) -> None:
    done = tree.setup("--all")
    assert done.returncode == 1
    assert "there is no apt-get here" in done.stderr
    assert "redis-server" in done.stderr


# -- where the tests run ----------------------------------------------------------------------


@pytest.mark.needs("bash")
def test_a_clone_below_a_directory_with_a_blank_runs_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a b").symlink_to(sys.prefix)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "a b/bin" / Path(sys.executable).name))
    done = Shell(tmp_path).bash("presign --version")
    assert done.code == 0, done.out


def test_ctrl_c_is_heard_where_the_tests_run_in_the_background(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Terminal([sys.executable, "-c", "input('name: ')"], tmp_path, os.environ) as terminal:
            terminal.wait_for_question()
            terminal.interrupt()
            assert terminal.wait() != 0
    finally:
        signal.signal(signal.SIGINT, before)
