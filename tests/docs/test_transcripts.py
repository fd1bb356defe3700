"""The command line as stories: what is typed, what is to be seen, how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.places import TESTS
from support.process import free_port
from support.shell import Shell
from support.transcript import play

STORIES = sorted((TESTS / "data/transcripts").glob("*.txt"))


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.stem)
def test_the_story_goes_as_it_is_told(story: Path, shell: Shell) -> None:
    play(story, shell, {"here": str(shell.directory), "port": str(free_port())})
