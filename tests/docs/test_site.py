"""The documents as a site and on a code host: every link leads somewhere, in both, to its very heading."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import shutil
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from support.browser import Browser, lightness
from support.places import ROOT
from support.puppet import eventually
from support.web import serving

MKDOCS = Path(sys.executable).parent / "mkdocs"
PAGES = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))
LINK = re.compile(r"\]\(((?!https?:|mailto:)[^)\s]*)\)")


def build(tree: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """`mkdocs build --strict` in a copy of the project."""
    return subprocess.run(
        [str(MKDOCS), "build", "--strict", "--site-dir", str(site)],
        cwd=tree,
        env={"NO_MKDOCS_2_WARNING": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


@cache
def anchors(page: Path) -> frozenset[str]:
    """What may stand behind `#`: GitHub's rule for headings."""
    text = re.sub(r"^( *)```.*?^\1```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    seen: Counter[str] = Counter()
    found = []
    for heading in re.findall(r"^#{1,6} (.+?) *$", text, re.MULTILINE):
        words = re.sub(r"\]\([^)]*\)", "", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.append(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return frozenset(found)


def broken(page: Path) -> list[str]:
    """The relative links of a page that lead nowhere on a code host."""
    found = []
    for link in LINK.findall(re.sub(r"`[^`\n]*`", "", page.read_text("utf-8"))):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_somewhere_on_a_code_host(page: Path) -> None:
    assert broken(page) == []


def test_a_link_to_a_heading_that_is_not_there_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One `way`, two\n[a](#one-way-two) [b](#one-way) [c](other.md) [d](page.md#one-way-two)\n"
    )
    assert broken(page) == ["#one-way", "other.md"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    done = build(ROOT, directory)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


def test_the_site_has_every_page_of_docs(site: Path) -> None:
    for page in sorted((ROOT / "docs").rglob("*.md")):
        name = page.relative_to(ROOT / "docs").with_suffix("")
        where = name.parent if name.name == "index" else name
        assert (site / where / "index.html").is_file(), name


def test_the_site_draws_what_a_code_host_draws(site: Path) -> None:
    first = (site / "index.html").read_text("utf-8")
    for drawing in ("first-minute.svg", "secrets.svg"):
        assert f'src="{drawing}"' in first
        assert (site / drawing).is_file()
    assert not any("```mermaid" in page.read_text("utf-8") for page in PAGES), (
        "needs a script of another server"
    )


ASSET = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*?\b(?:src|srcset|data)=["']([^"']*)"""
)
SHEET = re.compile(r"""<link\b(?![^>]*rel=["']?(?:canonical|edit|next|prev)\b)[^>]*?href=["']([^"']*)""")
STYLE = re.compile(r"""(?:url\(|@import\s+)["']?((?:https?:)?//[^"')]*)""")
ELSEWHERE = re.compile(r"(?:[a-z]+:)?//")


def loaded(text: str) -> list[str]:
    """What a browser loads for a page or a style sheet from another server."""
    found = [*ASSET.findall(text), *SHEET.findall(text), *STYLE.findall(text)]
    return [one for one in found if ELSEWHERE.match(one)]


def test_the_site_loads_nothing_from_another_server(site: Path) -> None:
    pages = [*site.rglob("*.html"), *site.rglob("*.css"), *site.rglob("*.svg")]
    assert len(pages) > 20
    assert {
        str(page.relative_to(site)): found for page in pages if (found := loaded(page.read_text("utf-8")))
    } == {}
    # Marks in a page for which the theme fetches more: Mermaid, the stars of a repository.
    for page in site.rglob("*.html"):
        assert not re.search(r'class="mermaid"|data-md-component="source"', page.read_text("utf-8")), page


GROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.mark.needs("chromedriver")
def test_a_browser_asks_no_other_server_and_the_first_page_fits_a_phone_and_the_night(site: Path) -> None:
    with serving(site) as address, Browser() as browser:
        for dark in (False, True):
            for width in (320, 1000):
                browser.look(width, dark=dark)
                browser.open(address)
                assert browser.value("document.documentElement.scrollWidth") <= width
            assert eventually(lambda dark=dark: (lightness(browser.value(GROUND)) < 150) is dark, 20)
        browser.open(f"{address}architecture/")
        assert "The way of one request" in browser.text
        asked = [url for url in browser.asked_for() if not url.startswith(("data:", "blob:", "chrome"))]
    assert any(url.endswith("secrets.svg") for url in asked)
    assert [url for url in asked if not url.startswith(address)] == []


@pytest.mark.parametrize("text", [
    '<script async src="https://unpkg.com/mermaid"></script>',
    "<img alt=a src='//a.example/b.png'>",
    '<link rel="stylesheet" href="https://fonts.example/css">',
    "<style>@import 'https://fonts.example/css'</style>",
    "a { background: url(https://a.example/b.png) }",
])  # fmt: skip
def test_what_comes_from_another_server_is_seen(text: str) -> None:
    assert loaded(text)


def test_the_files_of_deploy_are_where_a_page_names_them(site: Path) -> None:
    """A reader without the code host guessed the file for HAProxy, and its health check was wrong."""
    for page, name in (("running", "haproxy.cfg"), ("jobs/containers", "compose.yaml")):
        text = (site / page / "index.html").read_text("utf-8")
        (href,) = set(re.findall(rf'href="([^"]*/{name})"', text))
        assert (site / page / href).read_bytes() == (ROOT / "deploy" / name).read_bytes()


def test_a_link_out_of_docs_leads_to_the_code_host(site: Path) -> None:
    text = (site / "jobs/upgrade/index.html").read_text("utf-8")
    assert 'href="https://github.com/presign-proxy/presign-proxy/blob/main/CHANGELOG.md"' in text
    for page in site.rglob("index.html"):
        assert not re.search(r'href="[^":]*\.md[#"]', page.read_text("utf-8")), page


LINKS = {
    "[a](running.md#tls) [b](../deploy/compose.yaml)": "",
    "[a](nowhere.md)": "nowhere.md",
    "[a](limits.md#nowhere)": "#nowhere",
    "[a](../deploy/nowhere.yaml)": "../deploy/nowhere.yaml",
}


@pytest.mark.slow
@pytest.mark.parametrize("link", LINKS)
def test_a_broken_link_breaks_the_build(link: str, tmp_path: Path) -> None:
    for path in ROOT.iterdir():
        if path.name in ("docs", "tools"):
            shutil.copytree(path, tmp_path / path.name)
        elif path.name != "build":
            (tmp_path / path.name).symlink_to(path)
    with (tmp_path / "docs/limits.md").open("a") as page:
        page.write(f"\n{link}\n")
    done = build(tmp_path, tmp_path / "site")
    assert (done.returncode != 0) == bool(LINKS[link]), done.stderr
    assert LINKS[link] in done.stderr


def recorder() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("record", str(ROOT / "tools/record"))
    spec = importlib.util.spec_from_loader("record", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.needs("bash", "curl")
def test_the_first_minute_is_what_is_seen_today() -> None:
    """It plays the commands of docs/index.md. To draw them anew: .venv/bin/python tools/record"""
    record = recorder()
    drawn = record.draw(record.typed())
    assert drawn == (ROOT / "docs/first-minute.svg").read_text("utf-8")
    assert len(drawn) < 10_000
