"""The layering of the house, read from the imports."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "addon/presign_proxy"
FILES = sorted(path for path in PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


# The only files that know mitmproxy.
MITMPROXY = {
    "addon",
    "dialling",
    "dispatch",
    "downloads",
    "dumping",
    "endings",
    "flows",
    "first_bytes",
    "fronting",
    "guard",
    "half_closed",
    "handlers",
    "housekeeping",
    "http1",
    "http1_client",
    "http2",
    "internals",
    "lane.express",
    "lane.junction",
    "lane.judging",
    "lane.layer",
    "layering",
    "sending",
    "sharing",
    "serving.draining",
    "serving.master",
    "serving.shortcuts",
    "serving.worker",
    "stream",
    "upstream_protocol",
    "waits",
    "windows",
    "wire",
    "cli.demo",
}
# Shells: one kind of I/O each. Everything else is the core.
SHELLS = {
    "admission",
    "acyclic",
    "adopting",
    "calm",
    "chunks",
    "certificate",
    "draft",
    "commands",
    "config",
    "config_path",
    "document",
    "fetching",
    "filling",
    "permissions",
    "plainly",
    "prerequisites",
    "gates",
    "goodbyes",
    "journal",
    "keeper",
    "last_bytes",
    "lent",
    "lane",
    "lane.delivery",
    "lane.exchange",
    "lane.heads",
    "lane.incoming",
    "lane.intake",
    "lane.link",
    "lane.opening",
    "lane.outbox",
    "lane.pool",
    "lane.recent",
    "lane.record",
    "lane.resending",
    "lane.trust",
    "lane.uploads",
    "limits.deadline",
    "limits.limiter",
    "limits.model",
    "identity",
    "invocation",
    "ledger",
    "mitmproxy_script.presign_addon",
    "notice",
    "observing.admin",
    "observing.observer",
    "observing.probe",
    "observing.process",
    "observing.terminal",
    "options",
    "presets",
    "presets.own",
    "presets.model",
    "problems",
    "redaction",
    "registering",
    "programs",
    "registry_file",
    "registry_opening",
    "reloading",
    "resolver",
    "response_chunks",
    "schema",
    "secrets",
    "seeing",
    "sips",
    "sockets",
    "spares",
    "serving",
    "serving.__main__",
    "serving.accepting",
    "serving.channel",
    "serving.confdir",
    "serving.flood",
    "serving.lines",
    "serving.listening",
    "serving.notifying",
    "serving.orphans",
    "serving.overseeing",
    "serving.parting",
    "serving.plan",
    "serving.process",
    "serving.room",
    "serving.supervisor",
    "signing_parts",
    "signing_view",
    "sinks",
    "storing",
    "stores",
    "stores.desk",
    "stores.line",
    "stores.memory",
    "stores.opening",
    "stores.redis",
    "stores.sqlite",
    "threads",
    "turns",
    "vault",
    "watching",
}
SHELLS |= {"__init__", "__main__"} | {
    name_of(path) for path in FILES if name_of(path).partition(".")[0] == "cli"
}
# What the core may not touch: clocks, environment, disk, sockets, threads, chance.
IMPURE = {
    "asyncio",
    "datetime",
    "http",
    "io",
    "logging",
    "os",
    "pathlib",
    "random",
    "shutil",
    "signal",
    "socket",
    "ssl",
}
IMPURE |= {
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
    "mitmproxy",
    "click",
    "yaml",
    "pydantic",
    "h11",
    "h2",
    "tornado",
}
# `http.HTTPStatus` is a table; `datetime` knows the calendar and is given the instant;
# `os.urandom` fills a key ring once, when it is made.
ALLOWED = {
    ("answers", "http"),
    ("limits.rules", "datetime"),
    ("observing.units", "datetime"),
    ("values", "datetime"),
    ("keys", "os"),
}


def imports_of(path: Path) -> set[str]:
    """Top-level names of packages from outside, anywhere in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").partition(".")[0])
    return found


def inner_imports_of(path: Path) -> set[str]:
    """Modules of the package that a file imports."""
    package = name_of(path).split(".")[:-1] if path.name != "__init__.py" else name_of(path).split(".")
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            module = [*base, *(node.module or "").split(".")] if node.module else base
            dotted = ".".join(part for part in module if part)
            found |= {dotted} if dotted else {alias.name for alias in node.names}
            found |= {f"{dotted}.{alias.name}" for alias in node.names} & {name_of(file) for file in FILES}
    return {name for name in found if name}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_mitmproxy_is_known_in_few_files(path: Path) -> None:
    assert ("mitmproxy" in imports_of(path)) == (name_of(path) in MITMPROXY)


@pytest.mark.parametrize("path", [p for p in FILES if name_of(p) not in MITMPROXY | SHELLS], ids=name_of)
def test_the_core_is_pure(path: Path) -> None:
    name = name_of(path)
    assert not {module for module in imports_of(path) & IMPURE if (name, module) not in ALLOWED}
    assert not inner_imports_of(path) & (MITMPROXY | SHELLS)


@pytest.mark.parametrize("script", ["presign.py", "presign_proxy/mitmproxy_script/presign_addon.py"])
def test_the_script_does_nothing_but_list_the_addon(script: str) -> None:
    """mitmproxy does not put it in sys.modules: classes and relative imports break there."""
    tree = ast.parse((PACKAGE.parent / script).read_text("utf-8"))
    assert [type(node) for node in tree.body] == [ast.Expr, ast.ImportFrom, ast.Assign]
    assert len(tree.body) == 3


def test_the_script_of_the_package_lies_alone() -> None:
    """mitmproxy puts its directory first on sys.path: a file beside it would shadow what others import."""
    beside = {path.name for path in (PACKAGE / "mitmproxy_script").iterdir()}
    assert beside - {"__pycache__"} == {"presign_addon.py"}


def functions() -> list[tuple[str, int]]:
    found = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.append((f"{name_of(path)}.{node.name}", (node.end_lineno or 0) - node.lineno + 1))
    return found


def test_no_function_outgrows_a_screen() -> None:
    assert [(name, lines) for name, lines in functions() if lines > 60] == []


def test_no_file_holds_more_than_one_noun() -> None:
    lengths = {name_of(path): len(path.read_text("utf-8").splitlines()) for path in FILES}
    assert {name: lines for name, lines in lengths.items() if lines > 450} == {}


def test_secrets_are_revealed_in_few_places() -> None:
    reveals = {name_of(path) for path in FILES if ".reveal()" in path.read_text("utf-8")}
    assert reveals == {
        "cli.starting",
        "cli.vaulting",
        "injectors",
        "keys",
        "registering",
        "signer",
        "signing_parts",
        "stores.opening",
        "stores.redis",
        "vault",
    }


def test_signatures_are_compared_in_one_place() -> None:
    compares = {name_of(path) for path in FILES if "compare_digest" in path.read_text("utf-8")}
    assert compares == {"keys", "cli.upstream"}
