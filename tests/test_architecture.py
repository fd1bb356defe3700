"""The rooms of the house and their order, read from the imports."""

from __future__ import annotations

import ast
import re
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

import pytest

PACKAGE: Final = Path(__file__).parents[1] / "addon/presign_proxy"
FILES: Final = sorted(PACKAGE.rglob("*.py"))

FLOORS: Final = {
    "": 1,  # what lies at the root
    "http": 2,
    "signing": 3,
    "limits": 4,
    "core": 5,
    "config": 6,
    "observe": 6,
    "explain": 6,
    "gateway": 7,
    "mitm": 8,
    "serve": 9,
    "cli": 10,
}
"""A room imports from rooms below it, and from none beside it."""
NOT_FOR: Final = {"cli": {"mitm"}}
"""The command starts mitmproxy, and knows nothing of what runs in it."""
ROOT: Final = {
    *(
        "errors",
        "file_access",
        "config_problems",
        "similar_names",
        "prerequisites",
        "regexes",
        "units",
        "version",
    ),
    *("__init__", "__main__"),
}
"""Words for refusals, mistakes and figures, which all rooms use; and the ways in."""
WAYS_IN: Final = {"__init__", "__main__"}
"""May import anything."""

PURE: Final = {"http", "signing", "core", "explain"}
ALSO_PURE: Final = {
    *("errors", "config_problems", "similar_names", "regexes", "units"),
    *("limits.circuit_breaker", "limits.counter", "limits.rules", "limits.verdict"),
    *(
        "observe.audit_record",
        "observe.meter",
        "observe.metrics",
        "observe.prometheus",
        "observe.request_line",
    ),
    *("config.auth_types", "config.forms", "config.strict_json", "config.values", "config.whole_file"),
    *("config.presets.markdown_table", "config.registry_file.revoked_entries"),
}
"""Files of rooms and of the root that are pure, though not all of their room is."""
# What pure code may not touch: clocks, environment, disk, sockets, threads, chance.
IMPURE: Final = {
    *(
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
    ),
    *("ssl", "subprocess", "sys", "tempfile", "threading", "time"),
    *("mitmproxy", "click", "yaml", "pydantic", "h11", "h2", "tornado"),
}
# `http.HTTPStatus` is a table; `datetime` knows the calendar and is given the instant;
# `os.urandom` fills a key ring once, when it is made.
ALLOWED: Final = {
    ("core.answers", "http"),
    ("limits.rules", "datetime"),
    ("units", "datetime"),
    ("config.values", "datetime"),
    ("core.token_answer", "datetime"),
    ("core.aws_sigv4", "datetime"),
    ("signing.keys", "os"),
}
# A circle is a noun that nobody has found yet. Each that there still is, by its files.
CIRCLES: Final[set[frozenset[str]]] = set()

LINES: Final = 300
SCREEN: Final = 40
ATTRIBUTES: Final = 12
LONG_FILES: Final[dict[str, int]] = {}
LONG_FUNCTIONS: Final[dict[str, int]] = {}
WIDE_CLASSES: Final[dict[str, int]] = {
    # The state of one process: what it was asked for, whom it has, and how far its end has come.
    "serve.supervisor.Supervisor": 16,
}
"""What is larger than the bar above, and how large: it may shrink, and has to leave the list when it fits."""


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def room_of(name: str) -> str:
    room = name.partition(".")[0]
    return room if room in FLOORS else ""


NAMES: Final = {name_of(path): path for path in FILES}


class Import(NamedTuple):
    module: str
    """Of ours, without the package; of others, as it is written."""
    is_ours: bool


def imports(path: Path) -> list[Import]:
    """All of a file, wherever they stand: those for types and those inside functions, too."""
    package = list(path.relative_to(PACKAGE).parts[:-1])
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [_whole(alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
                module = Import(".".join(part for part in base if part), is_ours=True)
            else:
                module = _whole(node.module or "")
            for alias in node.names:
                inner = f"{module.module}.{alias.name}".removeprefix(".")
                found.append(Import(inner, is_ours=True) if module.is_ours and inner in NAMES else module)
    return found


def _whole(module: str) -> Import:
    top, _, rest = module.partition(".")
    return Import(rest, is_ours=True) if top == "presign_proxy" else Import(module, is_ours=False)


def imports_of(path: Path) -> set[str]:
    """Top-level names of packages from outside."""
    return {one.module.partition(".")[0] for one in imports(path) if not one.is_ours}


def inner_imports_of(path: Path) -> set[str]:
    """Modules of the package that a file imports."""
    return {one.module or "__init__" for one in imports(path) if one.is_ours}


# -- rooms ------------------------------------------------------------------------------------------------


def test_everything_has_a_room() -> None:
    # Of a folder that was moved away, what Python compiled may have stayed.
    folders = {path.name for path in PACKAGE.iterdir() if any(path.rglob("*.py"))}
    assert folders == FLOORS.keys() - {""}
    assert {name for name in NAMES if room_of(name) == "" and "." not in name} == ROOT


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_room_imports_from_rooms_below_it(path: Path) -> None:
    name = name_of(path)
    room = room_of(name)
    if name in WAYS_IN:
        return
    above = {
        one
        for one in inner_imports_of(path)
        if room_of(one) != room
        and (FLOORS[room_of(one)] >= FLOORS[room] or room_of(one) in NOT_FOR.get(room, ()))
    }
    assert above == set()


@pytest.mark.parametrize("path", [path for path in FILES if path.name == "__init__.py"], ids=name_of)
def test_the_face_of_a_room_is_empty(path: Path) -> None:
    if path.parent != PACKAGE:  # the package itself offers `Signer`
        assert [type(node) for node in ast.parse(path.read_text("utf-8")).body] == [ast.Expr]


@pytest.mark.parametrize(
    "path", [p for p in FILES if room_of(name_of(p)) in PURE or name_of(p) in ALSO_PURE], ids=name_of
)
def test_the_core_is_pure(path: Path) -> None:
    name = name_of(path)
    assert {module for module in imports_of(path) & IMPURE if (name, module) not in ALLOWED} == set()


def test_what_is_called_pure_is_there() -> None:
    assert ALSO_PURE - NAMES.keys() == set()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_mitmproxy_is_known_in_few_rooms(path: Path) -> None:
    name = name_of(path)
    if room_of(name) not in ("mitm", "serve") and name != "cli.demo":
        assert "mitmproxy" not in imports_of(path)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_inside_of_protocol_libraries_is_known_in_one_room(path: Path) -> None:
    if room_of(name_of(path)) != "mitm":
        inside = {
            one.module for one in imports(path) if one.module.partition(".")[0] in ("h2", "hpack", "h11")
        }
        assert {module for module in inside if module != "h11"} == set()


def circles() -> set[frozenset[str]]:
    """Files each of which imports, by way of the others, itself (Tarjan)."""
    graph = {name: sorted((inner_imports_of(path) & NAMES.keys()) - {name}) for name, path in NAMES.items()}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: set[frozenset[str]] = set()

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            circle = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(circle) > 1:
                found.add(frozenset(circle))

    for name in graph:
        if name not in index:
            visit(name)
    return found


def test_no_file_imports_itself_by_way_of_others() -> None:
    assert circles() == CIRCLES


PAGE: Final = PACKAGE.parents[1] / "docs/architecture.md"


def test_the_page_tells_of_all_rooms_in_their_order() -> None:
    rows = re.findall(r"^\| `(\w+)/` \|.*\| *(yes)? *\|$", PAGE.read_text("utf-8"), re.MULTILINE)
    floors = [FLOORS[room] for room, _ in rows]
    assert {room for room, _ in rows} == FLOORS.keys() - {""}
    assert floors == sorted(floors, reverse=True)
    assert {room for room, pure in rows if pure} == PURE


def test_the_page_names_files_that_are_there() -> None:
    named = set(re.findall(r"`([\w./]+\.(?:py|json|md))`", PAGE.read_text("utf-8")))
    assert len(named) > 50
    places = (PACKAGE, PAGE.parents[1])
    assert [name for name in sorted(named) if not any((place / name).is_file() for place in places)] == []


# -- sizes ------------------------------------------------------------------------------------------------


def too_large(sizes: dict[str, int], bar: int, known: dict[str, int]) -> dict[str, str]:
    found = {}
    for name in sizes.keys() | known.keys():
        size = sizes.get(name, 0)
        if name not in known and size > bar:
            found[name] = f"{size} is more than {bar}"
        elif name in known and size > known[name]:
            found[name] = f"{size} is more than the {known[name]} that it had"
        elif name in known and size <= bar:
            found[name] = "is on the list, and fits"
    return found


def functions(path: Path) -> dict[str, int]:
    found: dict[str, int] = {}

    def visit(node: ast.AST, inside: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = getattr(child, "name", "")
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (child.end_lineno or 0) - child.lineno + 1
                found[f"{inside}.{name}"] = max(lines, found.get(f"{inside}.{name}", 0))
            is_named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            visit(child, f"{inside}.{name}" if is_named else inside)

    visit(ast.parse(path.read_text("utf-8")), name_of(path))
    return found


def attributes(path: Path) -> dict[str, int]:
    """Of each class, what its methods and its body give to `self`."""
    found = {}
    for owner in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(owner, ast.ClassDef):
            continue
        names = {
            node.attr
            for node in ast.walk(owner)
            if isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and getattr(node.value, "id", "") == "self"
        }
        if any(
            getattr(one, "id", getattr(getattr(one, "func", None), "id", "")) in DATA for one in _marks(owner)
        ):
            continue
        found[f"{name_of(path)}.{owner.name}"] = len(names)
    return found


DATA: Final = {"dataclass", "NamedTuple", "BaseModel", "Protocol", "TypedDict"}
"""A value with many fields is one thing; an object with as many states is several."""


def _marks(owner: ast.ClassDef) -> chain[ast.expr]:
    return chain(owner.bases, owner.decorator_list)


def test_no_file_holds_more_than_one_noun() -> None:
    lengths = {name: len(path.read_text("utf-8").splitlines()) for name, path in NAMES.items()}
    assert too_large(lengths, LINES, LONG_FILES) == {}


def test_no_function_outgrows_a_screen() -> None:
    lengths = {name: lines for path in FILES for name, lines in functions(path).items()}
    assert too_large(lengths, SCREEN, LONG_FUNCTIONS) == {}


def test_no_object_is_in_too_many_states() -> None:
    counts = {name: count for path in FILES for name, count in attributes(path).items()}
    assert too_large(counts, ATTRIBUTES, WIDE_CLASSES) == {}


# -- single rules -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["presign.py", "presign_proxy/mitm/script/presign_addon.py"])
def test_the_script_does_nothing_but_list_the_addon(script: str) -> None:
    """mitmproxy does not put it in sys.modules: classes and relative imports break there."""
    tree = ast.parse((PACKAGE.parent / script).read_text("utf-8"))
    assert [type(node) for node in tree.body] == [ast.Expr, ast.ImportFrom, ast.Assign]
    assert len(tree.body) == 3


def test_the_script_of_the_package_lies_alone() -> None:
    """mitmproxy puts its directory first on sys.path: a file beside it would shadow what others import."""
    beside = {path.name for path in (PACKAGE / "mitm/script").iterdir()}
    assert beside - {"__pycache__"} == {"presign_addon.py"}


def test_secrets_are_revealed_in_few_places() -> None:
    reveals = {name for name, path in NAMES.items() if ".reveal()" in path.read_text("utf-8")}
    assert reveals == {
        "cli.init",
        "cli.registry_file",
        "config.build_credentials",
        "config.build_sigv4",
        "config.registry_file.encryption",
        "config.proxy_url",
        "config.signing_parts",
        "core.aws_sigv4",
        "config.upstream_tls",
        "config.way_out",
        "core.credentials",
        "core.oauth2",
        "core.path_credential",
        "core.registry_token",
        "gateway.http_tunnel",
        "gateway.socks5",
        "gateway.token_mint",
        "limits.stores.open",
        "limits.stores.redis",
        "mitm.lane.upstream_tls",
        "mitm.upstream_certificates",
        "signing.keys",
        "signing.signer",
    }


def test_signatures_are_compared_in_one_place() -> None:
    compares = {name for name, path in NAMES.items() if "compare_digest" in path.read_text("utf-8")}
    assert compares == {"signing.keys", "cli.demo_upstream"}
