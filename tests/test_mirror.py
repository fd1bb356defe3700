"""Each test stands where its code is: a folder for each room, and in a pure room a file for each module.
What is attacked, and with which client, is no module: such tests have folders of their own.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from support.places import ROOT, TESTS

PACKAGE: Final = ROOT / "addon/presign_proxy"
PURE: Final = ("http", "signing", "limits", "core")
"""Rooms in which each module has a test of its name, and no test starts a gateway."""
FOLDERS: Final = {
    "attacks": "what an attacker does, whatever code it meets",
    "clients": "programs of other people, unchanged, through a real gateway",
    "docs": "documents, recipes and stories, run",
    "repository": "what is published, the image, the set-up, and the tools that test",
    "install": "what needs a package index; no part of an ordinary run",
}
"""Beside those of the rooms."""
TOP: Final = ("test_architecture.py", "test_mirror.py")
ELSEWHERE: Final[dict[str, tuple[str, str]]] = {
    "core/answers.py": ("mitm/test_refusals.py", "what a client is told is read where a client reads it"),
    "limits/usage.py": ("cli/test_usage.py", "what is left is read where an operator reads it"),
    "limits/stores/counts.py": ("cli/test_usage.py", "what gateways have counted is read from their stores"),
    "core/ceiling.py": ("core/test_policy.py", "data: it is a policy that holds something against it"),
    "core/common_checks.py": ("core/test_grant.py", "both schemes use it"),
    "core/source_checks.py": ("core/test_presign_checks.py", "both tables of checks are held alike"),
    "core/connection.py": ("core/test_grant.py", "data: a grant is what reads it"),
    "core/content_coding.py": ("core/test_response_body.py", "a body is unpacked by it"),
    "core/credentials.py": (
        "core/test_rewrite_request.py",
        "a credential is seen in the request that it was put into",
    ),
    "core/destinations.py": ("core/test_grant.py", "where a connection leads is asked with each grant"),
    "core/preflight.py": ("core/test_cors.py", "a preflight is answered by the rules"),
    "core/redact.py": (
        "core/test_rewrite_request.py",
        "what nobody may see is looked for in a request that was refused",
    ),
    "core/redirects.py": ("core/test_rewrite_response.py", "a redirect is seen in the response"),
    "core/registry.py": ("core/test_grant.py", "it is asked with each grant"),
    "core/strip_list.py": (
        "core/test_rewrite_request.py",
        "what is taken off is missing in the request that goes on",
    ),
    "core/unsigned.py": (
        "mitm/test_second_hosts.py",
        "what needs no presign is tried with everything that does",
    ),
    "http/connection_reuse.py": (
        "mitm/test_shared_upstreams.py",
        "what it says of a method is only true where careless upstreams are met",
    ),
    "http/field_names.py": (
        "attacks/test_identity_headers.py",
        "a name matters by what it would tell an upstream",
    ),
    "http/hosts.py": (
        "config/test_load.py",
        "hosts are written in the configuration, and told there what is wrong",
    ),
    "http/patterns.py": ("http/test_paths.py", "a pattern is seen in the paths that it matches"),
    "http/response_head.py": (
        "mitm/test_framing.py",
        "the same answer has to be read in one way on every path, so it is sent over each",
    ),
    "limits/deadline.py": ("limits/stores/test_store.py", "what waits for it is a store"),
    "limits/limiter.py": ("limits/stores/test_store.py", "each promise of it has to hold over every store"),
    "limits/slots.py": ("limits/stores/test_store.py", "a slot is kept, lost and given back in a store"),
    "limits/stores/sqlite_batches.py": (
        "limits/stores/test_sqlite.py",
        "a batch is what the file is written with",
    ),
    "limits/stores/sqlite_file.py": (
        "limits/stores/test_sqlite.py",
        "the file and the store over it are tried from inside, together",
    ),
    "signing/disclosure.py": (
        "attacks/test_disclosure.py",
        "what browsers and SDKs tell is tried with all headers",
    ),
    "signing/grammar.py": ("core/test_policy.py", "its lists are what a policy is made of"),
    "signing/key_token.py": (
        "signing/test_carrier_names.py",
        "a key token is one of the carriers",
    ),
}
"""Modules without a test of their name: the test of each, and why it is there."""
GATEWAYS: Final = {"gateway", "make_gateway", "module_gateway", "make_served", "lab", "module_lab", "proxy"}
"""Fixtures of conftest.py that start one; every module may run in it."""


def mirrored(module: str) -> str:
    """Where the test of a module is."""
    folder, _, name = module.rpartition("/")
    return f"{folder}/test_{name}"


def modules(package: Path) -> set[str]:
    found = [path for room in PURE for path in (package / room).rglob("*.py") if path.name != "__init__.py"]
    return {path.relative_to(package).as_posix() for path in found}


def files(tests: Path) -> list[str]:
    found = [path.relative_to(tests).as_posix() for path in tests.rglob("test_*.py")]
    return sorted(one for one in found if not one.startswith(("support/", "data/")))


def problems(package: Path, tests: Path, elsewhere: dict[str, tuple[str, str]]) -> list[str]:
    """What stands in the wrong place, or is missing."""
    there, found = modules(package), []
    for module in sorted(there):
        has_own = (tests / mirrored(module)).is_file()
        if not has_own and module not in elsewhere:
            found.append(f"{module}: there is no tests/{mirrored(module)}, and ELSEWHERE gives no reason")
        elif has_own and module in elsewhere:
            found.append(f"{module}: has a test of its name, and a reason why it has none")
    for module, (test, why) in elsewhere.items():
        if module not in there:
            found.append(f"{module}: a reason for a module that is gone")
        if not (tests / test).is_file() or not why:
            found.append(f"{module}: no tests/{test}, or no reason")
    for test in files(tests):
        folder, _, name = test.rpartition("/")
        is_placed = name in TOP if not folder else folder in FOLDERS or (package / folder).is_dir()
        if not is_placed:
            found.append(f"tests/{test}: {folder or 'the top'} is no room, and none of {', '.join(FOLDERS)}")
    return found


def test_each_test_stands_where_the_code_is_that_it_tests() -> None:
    assert problems(PACKAGE, TESTS, ELSEWHERE) == []


@pytest.mark.parametrize("test", [one for one in files(TESTS) if one.startswith(PURE)])
def test_no_test_of_a_pure_room_starts_a_gateway(test: str) -> None:
    assert not starts_a_gateway((TESTS / test).read_text("utf-8"))


@pytest.mark.parametrize(("module", "test"), [(module, test) for module, (test, _) in ELSEWHERE.items()])
def test_the_test_that_is_named_for_a_module_gets_there(module: str, test: str) -> None:
    assert starts_a_gateway((TESTS / test).read_text("utf-8")) or PACKAGE / module in reached(TESTS / test)


def starts_a_gateway(text: str) -> bool:
    """Whether a test or a fixture asks for one."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            is_fixture = any("fixture" in ast.unparse(one) for one in node.decorator_list)
            asked = {one.arg for one in node.args.args}
            if (is_fixture or node.name.startswith("test_")) and asked & GATEWAYS:
                return True
    return False


def reached(test: Path) -> set[Path]:
    """The files that a test imports, and those that they import."""
    found, waiting = set[Path](), [test]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += imported(path)
    return found


@cache
def imported(path: Path) -> list[Path]:
    """Of the package and of support; a name that is imported may be a module."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = path.parents[node.level - 1] if node.level else None
            for top in [base] if base else [TESTS, ROOT / "addon"]:
                place = top.joinpath(*(node.module or "").split("."))
                found += [place.with_suffix(".py"), *(place / f"{one.name}.py" for one in node.names)]
    return [one for one in found if one.is_file()]


# -- that this can fail --------------------------------------------------------------------------------------


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """Two modules and their tests, all in their places."""
    for name in (
        *(
            "addon/core/policy.py",
            "addon/core/__init__.py",
            "addon/limits/stores/redis.py",
            "addon/mitm/lane/x.py",
        ),
        *(
            "tests/core/test_policy.py",
            "tests/limits/stores/test_redis.py",
            "tests/mitm/lane/test_any_name.py",
        ),
        *("tests/attacks/test_desync.py", "tests/test_mirror.py", "tests/support/test_helper.py"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert problems(tmp_path / "addon", tmp_path / "tests", {}) == []
    return tmp_path


@pytest.mark.parametrize(("new", "told"), [
    ("addon/core/oracle.py", "core/oracle.py: there is no tests/core/test_oracle.py"),
    ("addon/http/deep/er.py", "http/deep/er.py: there is no tests/http/deep/test_er.py"),
    ("tests/test_oracle.py", "tests/test_oracle.py: the top is no room"),
    ("tests/cellar/test_wine.py", "tests/cellar/test_wine.py: cellar is no room"),
    ("tests/core/stores/test_redis.py", "tests/core/stores/test_redis.py: core/stores is no room"),
])  # fmt: skip
def test_a_new_module_without_a_test_and_a_test_without_a_room_are_told(
    new: str, told: str, house: Path
) -> None:
    (house / new).parent.mkdir(parents=True, exist_ok=True)
    (house / new).touch()
    [found] = problems(house / "addon", house / "tests", {})
    assert found.startswith(told)


@pytest.mark.parametrize(("module", "test", "told"), [
    ("core/policy.py", "core/test_policy.py", "core/policy.py: has a test of its name"),
    ("core/gone.py", "core/test_policy.py", "core/gone.py: a reason for a module that is gone"),
    ("core/oracle.py", "core/test_gone.py", "core/oracle.py: no tests/core/test_gone.py"),
])  # fmt: skip
def test_a_reason_that_is_none_any_more_is_told(module: str, test: str, told: str, house: Path) -> None:
    if module == "core/oracle.py":
        (house / "addon" / module).touch()
    [found] = problems(house / "addon", house / "tests", {module: (test, "a reason")})
    assert found.startswith(told)


def test_who_asks_for_a_gateway_is_told_from_who_speaks_of_one() -> None:
    assert starts_a_gateway("def test_it(lab: LaneLab) -> None: ...")
    assert starts_a_gateway("@pytest.fixture\ndef served(make_gateway): ...")
    assert not starts_a_gateway(
        "def at(gateway: str) -> str: ...\ndef test_it(at_gateway: bool) -> None: ..."
    )
