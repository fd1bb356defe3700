"""The README and each page of docs/jobs/, typed from the top: a real gateway, and a stand-in for the APIs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from support.browser import Browser
from support.documents import DOCS, README, block, commands
from support.page_upstreams import NAMES, standing_in
from support.pages import API_KEY, Reader, World, written
from support.preloaded import ADDON
from support.puppet import eventually
from support.recorder import Recorder
from support.web import serving

JOBS = {name: text for name, text in DOCS.items() if name.startswith("jobs/")}


@pytest.fixture(scope="module")
def upstream(ca: trustme.CA) -> Iterator[Recorder]:
    with standing_in(ca) as recorder:
        yield recorder


@pytest.fixture
def reader(tmp_path: Path, ca_pem: Path, upstream: Recorder) -> Iterator[Reader]:
    upstream.clear()
    with Reader(tmp_path, World(ca_pem, NAMES, upstream.tls_port)) as made:
        yield made


@pytest.mark.slow
@pytest.mark.needs("bash", "curl", "openssl")
@pytest.mark.parametrize("name", sorted(JOBS.keys() - {"jobs/containers.md"}))
def test_the_commands_of_a_job_do_what_its_page_shows(name: str, reader: Reader, upstream: Recorder) -> None:
    follow(JOBS[name], name, reader, upstream)


@pytest.mark.needs("bash", "curl")
def test_the_first_url_of_the_readme_works(reader: Reader, upstream: Recorder) -> None:
    follow(README, "README.md", reader, upstream)


def follow(text: str, name: str, reader: Reader, upstream: Recorder) -> None:
    """Type a page. The API got requests, and no presign; no command printed the API key."""
    typed = reader.play(text, name)
    assert not [one.step.command for one in typed if API_KEY in one.out]
    assert upstream.requests, "no request has arrived"
    for request in upstream.requests:
        assert b"ps1_" not in request.raw and b"X-Presign" not in request.raw


@pytest.mark.slow
@pytest.mark.needs("bash", "curl", "chromedriver")
def test_the_page_in_a_browser_shows_what_the_url_leads_to(
    reader: Reader, upstream: Recorder, tmp_path: Path
) -> None:
    """With the URL of the command, and with that of the lines in Python."""
    text = JOBS["jobs/browser.md"]
    follow(text, "jobs/browser.md", reader, upstream)
    done = subprocess.run(
        [sys.executable, "-c", block(text, "python").replace("8080", str(reader.port))],
        env={"PYTHONPATH": str(ADDON), "SIGNING_SECRET": reader.secret},
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    with Browser() as browser:
        for url in (reader.variable("url"), done.stdout.strip()):
            upstream.clear()
            page = tmp_path / "page.html"
            page.write_text("<!DOCTYPE html>" + block(text, "html").replace("THE URL", url))
            with serving(tmp_path, reader.page_port):
                browser.open(f"http://localhost:{reader.page_port}/{page.name}")
                assert eventually(lambda: browser.text == "It works", 20), browser.text
            assert len(upstream.requests) == 1


def test_the_commands_for_containers_are_those_that_the_container_test_runs() -> None:
    """tests/repository/test_container_runs.py follows docs/running.md on a machine of its own."""
    section = DOCS["running.md"].partition("### The first time\n")[2].partition("\n### ")[0]
    assert commands(DOCS["jobs/containers.md"]) == commands(section)


@pytest.mark.parametrize("name", JOBS)
def test_a_page_has_a_goal_commands_and_what_can_go_wrong(name: str) -> None:
    text = JOBS[name]
    assert re.search(r"\A# .+\n\n\*\*Goal:\*\* ", text)
    assert 5 <= len(list(written(text))) <= 16
    assert "\n## What can go wrong\n" in text
