"""Every recipe of docs/signing.md, cut out of the document and run: what it makes, the gateway takes.

A language that is missing here is skipped.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import pytest

from presign_proxy.core.registry import Registry
from presign_proxy.http.message import Origin
from support import signing
from support.deciding import GATEWAY, NOW, SECRET, code, connection, project, registry, request, ring
from support.documents import DOCS, block
from support.lab import LAB_SECRET, REAL_SECRET
from support.places import TESTS
from support.policy import VECTORS as VECTORS_2
from support.policy import Policy
from support.programs import needs
from support.proxy import Mitm
from support.raw import parse_response, send_raw
from support.recorder import Recorder

CALLERS = TESTS / "support" / "recipes"
VECTORS = json.loads((TESTS / "data" / "seed_vectors.json").read_text("utf-8"))
BASE = f"http://{GATEWAY}"
PRESIGN, TOKEN, SOURCE = 0, 1, 2
"""Which of a language's blocks holds which recipe."""


class Case(NamedTuple):
    """One grant, and a path that it covers."""

    path: str
    methods: Sequence[str]
    paths: Sequence[str]
    connection: str = "conn"
    secret: str = SECRET
    expires: int = NOW + 60

    @property
    def args(self) -> list[Any]:
        return [self.connection, self.secret, self.path, list(self.methods), list(self.paths)]

    @property
    def signed(self) -> tuple[str, int, str, str]:
        return self.connection, self.expires, ",".join(sorted(self.methods)), ",".join(sorted(self.paths))

    @property
    def fields(self) -> dict[str, str]:
        return signing.presign_params(self.secret, *self.signed)

    @property
    def registry(self) -> Registry:
        return registry(connection(self.connection, keys=ring(self.secret)))

    @property
    def method(self) -> str:
        return self.methods[0].replace("*", "PATCH")


CASES = {
    f"vector {number}": Case(
        **{name: vector[name] for name in ("path", "methods", "paths", "expires")},
        connection=vector["connection_id"],
        secret=vector["signing_secret"],
    )
    for number, vector in enumerate(VECTORS["presign"])
} | {
    "unsorted": Case("v1/models", ["POST", "GET", "DELETE"], ["v1/models", "v1/chat/*", "v1"]),
    "everything": Case("a/b", ["*"], ["*"]),
    "never": Case("a/b", ["GET"], ["a/*"], expires=0),
    "space": Case("a%20b/c%20d", ["GET"], ["a b/*", " a", "a b"]),
    "plus": Case("a+b/c", ["GET"], ["a+b/*", "a b+"]),
    "percent": Case("50%25/x", ["GET"], ["50%25/x", "%zz", "100%"]),
    "ampersand": Case("a&b=c/d", ["GET"], ["a&b=c/*", "a&X-Presign-Paths=*"]),
    "punctuation": Case("a", ["GET"], ["a", "?q=1;x#y", "'\"`$(id)\\", "!~[]{}<>|^:@", "-n"]),
    "non-ASCII": Case("v1/%C3%BCber", ["GET"], ["v1/über", "v1/uber", "v1/z"]),
    # An order by UTF-16 units has the emoji first.
    "astral": Case("%F0%9F%98%80", ["GET"], ["\U0001f600", "\ue000", "\uffe5", "\u00ff"]),
    # An order by value has 9 before 10 and takes 10 and 1e1 for the same.
    "numbers": Case("10", ["GET"], ["9", "10", "1e1", "010", " 9"]),
    # An order by locale ignores case and punctuation.
    "case": Case("v1/B", ["PUT", "M-SEARCH", "MKCOL"], ["v1/a", "v1/B", "v1/a-b", "v1/ab", "v1/a/b", "V1"]),
}


class Call(NamedTuple):
    """Arguments for a recipe. `expires` is turned into its last one, a lifetime, when it is called."""

    args: list[Any]
    expires: int | None = None


def python(calls: list[Call], _: Path, name: str, number: int) -> list[str]:
    scope: dict[str, Any] = {}
    exec(block(DOCS["signing.md"], "python", number), scope)  # noqa: S102 - our own document's

    def call(args: list[Any], expires: int | None) -> str:
        if expires is None:
            return scope[name](*args)
        while True:
            now = int(time.time())
            made = scope[name](*args, expires - now)
            if int(time.time()) == now:
                return made

    return [call(*one) for one in calls]


def js(calls: list[Call], directory: Path, name: str, number: int) -> list[str]:
    needs("node")
    (directory / "recipe.mjs").write_text(block(DOCS["signing.md"], "js", number), "utf-8")
    shutil.copy(CALLERS / "call.mjs", directory)
    return answers(calls, directory, "node", "call.mjs", name)


def bash(calls: list[Call], directory: Path, *_: object) -> list[str]:
    needs("bash", "openssl")
    lines = [block(DOCS["signing.md"], "bash")]
    for args, expires in calls:
        words = " ".join(shlex.quote(arg if isinstance(arg, str) else ",".join(arg)) for arg in args)
        again = f"now=$(date +%s) url=$(presign {words} $(({expires} - now))); ((now != $(date +%s)))"
        lines.append(f'while {again}; do :; done; echo "$url"')
    (directory / "call.sh").write_text("\n".join(lines), "utf-8")
    return run(directory, ["bash", "-eu", "call.sh"]).splitlines()


def go(calls: list[Call], directory: Path, *_: object) -> list[str]:
    needs("go")
    (directory / "recipe.go").write_text(block(DOCS["signing.md"], "go"), "utf-8")
    shutil.copy(CALLERS / "call.go", directory)
    build = ["go", "build", "-o", "call", "recipe.go", "call.go"]
    run(directory, build, GOTOOLCHAIN="local", GOPROXY="off")
    return answers(calls, directory, "./call")


def ruby(calls: list[Call], directory: Path, *_: object) -> list[str]:
    needs("ruby")
    (directory / "recipe.rb").write_text(block(DOCS["signing.md"], "ruby"), "utf-8")
    shutil.copy(CALLERS / "call.rb", directory)
    return answers(calls, directory, "ruby", "-w", "call.rb")


def php(calls: list[Call], directory: Path, *_: object) -> list[str]:
    needs("php")
    (directory / "recipe.php").write_text(block(DOCS["signing.md"], "php"), "utf-8")
    shutil.copy(CALLERS / "call.php", directory)
    return answers(
        calls, directory, "php", "-d", "error_reporting=-1", "-d", "display_errors=stderr", "call.php"
    )


def answers(calls: list[Call], directory: Path, *argv: str) -> list[str]:
    asked = json.dumps([call._asdict() for call in calls])
    made: list[str] = json.loads(run(directory, argv, asked))
    return made


def run(directory: Path, argv: Sequence[str], given: str = "", **env: str) -> str:
    """What a program prints; it must not complain."""
    done = subprocess.run(
        argv,
        cwd=directory,
        env=os.environ | env,
        input=given,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


Recipe = Callable[[list[Call], Path, str, int], list[str]]
LANGUAGES: dict[str, Recipe] = {"python": python, "js": js, "bash": bash, "go": go, "ruby": ruby, "php": php}
SHORT: dict[str, Recipe] = {"python": python, "js": js}


def path_and_fields(url: str) -> tuple[str, list[tuple[str, str]]]:
    split = urlsplit(url)
    assert f"{split.scheme}://{split.netloc}" == BASE
    return split.path, sorted(parse_qsl(split.query, strict_parsing=True, errors="strict"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_presign_recipe_makes_what_the_gateway_takes(language: str, tmp_path: Path) -> None:
    calls = [Call([BASE, *case.args], case.expires) for case in CASES.values()]
    made = LANGUAGES[language](calls, tmp_path, "presign", PRESIGN)
    for (name, case), url in zip(CASES.items(), made, strict=True):
        path = f"/api/proxy/{case.connection}/{case.path}"
        assert path_and_fields(url) == (path, sorted(case.fields.items())), name
        asked = request(url.removeprefix(BASE), method=case.method)
        assert code(asked, case.registry, case.expires or NOW) == "forward", name
        if case.expires:
            assert code(asked, case.registry, case.expires + 1) == "expired", name
    for vector, url in zip(VECTORS["presign"], made, strict=False):
        assert path_and_fields(url) == path_and_fields(BASE + vector["url"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_url_of_a_presign_recipe_reaches_the_upstream(
    language: str, tmp_path: Path, gateway: Mitm, upstream: Recorder
) -> None:
    case = CASES["astral"]._replace(connection="conn_lab", secret=LAB_SECRET, expires=int(time.time()) + 60)
    (url,) = LANGUAGES[language]([Call([BASE, *case.args], case.expires)], tmp_path, "presign", PRESIGN)
    head = f"GET {url.removeprefix(BASE)} HTTP/1.1\r\nHost: {GATEWAY}\r\n\r\n"
    assert parse_response(send_raw(gateway.port, head.encode())).status == 200
    (seen,) = upstream.wait_for(1)
    assert seen.target == f"/{case.path}"
    assert seen.all("authorization") == [f"Bearer {REAL_SECRET}"]


@pytest.mark.parametrize("language", SHORT)
def test_token_recipe_makes_what_the_gateway_takes(language: str, tmp_path: Path) -> None:
    calls = [Call([case.connection, *case.fields.values()]) for case in CASES.values()]
    made = SHORT[language](calls, tmp_path, "token", TOKEN)
    for (name, case), token in zip(CASES.items(), made, strict=True):
        assert token == signing.token(case.secret, *case.signed), name
        asked = request(f"/p/{token}/{case.path}", method=case.method)
        assert code(asked, case.registry) == "forward", name


@pytest.mark.parametrize("language", SHORT)
def test_source_recipe_makes_what_the_gateway_takes(language: str, tmp_path: Path) -> None:
    names = ("project_key", "signing_secret", "source_url", "format")
    vectors = VECTORS["source_url"]
    calls = [Call([BASE, *(vector[name] for name in names)], vector["expires"]) for vector in vectors]
    made = SHORT[language](calls, tmp_path, "source", SOURCE)
    origins = (Origin("https", "cdn.acme.com", 443), Origin("http", "127.0.0.1", 9000))
    formats = frozenset({"jpg", "png", "mp4", "webp"})
    for vector, url in zip(vectors, made, strict=True):
        assert url == BASE + vector["url"]
        one = project(vector["project_key"], origins=origins, formats=formats)
        known = registry(replace(one, keys=ring(vector["signing_secret"])))
        assert code(request(vector["url"]), known, vector["expires"]) == "forward"
        assert code(request(vector["url"]), known, vector["expires"] + 1) == "expired"


def test_every_recipe_of_the_document_is_tested() -> None:
    fences = [line.strip("` ") for line in DOCS["signing.md"].splitlines() if line.strip().startswith("```")]
    kinds = [fence for fence in fences[::2] if fence not in ("text", "console")]
    in_a_browser = ["javascript"]  # tests/clients/test_pages_of_other_origins.py runs it
    assert sorted(kinds) == sorted([*LANGUAGES, *SHORT, *SHORT, *in_a_browser])


# -- docs/signed-policy.md -------------------------------------------------------------------------------

POLICIES = VECTORS_2["every_carrier"] + VECTORS_2["counted"]
SIGNABLE = [one for one in POLICIES if one["outcome"] not in ("invalid", "malformed")]


def titled(terms: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-").title(): value for name, value in terms.items()}


def policy_calls() -> list[Call]:
    found = []
    for one in SIGNABLE:
        grant, secret = one["grant"], VECTORS_2["secrets"][one["signed_with"]]
        lists = [list(reversed(grant[name].split(","))) for name in ("methods", "paths")]
        args = [grant["connection"], secret, grant["expires"], *lists, titled(one["terms"])]
        found.append(Call(args))
    return found


def policy_python(calls: list[Call], _: Path, name: str) -> list[Any]:
    scope: dict[str, Any] = {}
    exec(block(DOCS["signed-policy.md"], "python"), scope)  # noqa: S102 - our own document's
    return [scope[name](*call.args) for call in calls]


def policy_js(calls: list[Call], directory: Path, name: str) -> list[Any]:
    needs("node")
    (directory / "recipe.mjs").write_text(block(DOCS["signed-policy.md"], "js"), "utf-8")
    shutil.copy(CALLERS / "call.mjs", directory)
    return answers(calls, directory, "node", "call.mjs", name)


@pytest.mark.parametrize("recipe", [policy_python, policy_js])
def test_policy_recipe_makes_the_vectors(
    recipe: Callable[[list[Call], Path, str], list[Any]], tmp_path: Path
) -> None:
    made = recipe(policy_calls(), tmp_path, "policy")
    for one, fields in zip(SIGNABLE, made, strict=True):
        assert {"X-Presign-Connection": one["grant"]["connection"]} | fields == one["headers"], one["about"]
    tokens = recipe(
        [Call([one["grant"]["connection"], one["headers"]]) for one in SIGNABLE], tmp_path, "token"
    )
    assert tokens == [one["token"] for one in SIGNABLE]


def test_policy_recipe_of_bash_makes_the_vectors(tmp_path: Path) -> None:
    needs("bash", "openssl")
    lines = [block(DOCS["signed-policy.md"], "bash")]
    for one in SIGNABLE:
        grant, terms = one["grant"], one["terms"]
        secret = VECTORS_2["secrets"][one["signed_with"]]
        words = [BASE, grant["connection"], secret, one["request"]["path"], grant["methods"], grant["paths"]]
        words += [grant["expires"], *(f"{name.replace('_', '-')}:{terms[name]}" for name in sorted(terms))]
        lines.append(f"policy {shlex.join(words)}")
    (tmp_path / "call.sh").write_text("\n".join(lines), "utf-8")
    made = run(tmp_path, ["bash", "-eu", "call.sh"]).splitlines()
    for one, url in zip(SIGNABLE, made, strict=True):
        assert path_and_fields(url) == path_and_fields(BASE + one["url"]), one["about"]


def test_the_example_of_the_policy_is_what_its_recipe_makes() -> None:
    text = DOCS["signed-policy.md"]
    shown = [block(text, "text", number).removesuffix("\n") for number in range(5)]
    terms = {
        "Not-Before": "1893452400",
        "Client": "2001:db8::/32,203.0.113.0/24",
        "Max-Body": "1048576",
        "Id": "nightly-import",
    }
    secret = "sk_example_signing_secret_0123456789"
    assert secret in text
    example = Policy(secret, terms, "conn_example", 1893456000, "GET,POST", "v1/files/*")
    assert shown[1:] == [example.text, example.signature, example.target("v1/files/7"), example.token]
    asked = request(shown[3], client="203.0.113.9")
    assert code(asked, registry(connection("conn_example", keys=ring(secret))), 1893452400) == "forward"


def test_every_recipe_of_the_policy_is_tested() -> None:
    text = DOCS["signed-policy.md"]
    fences = [line.strip("` ") for line in text.splitlines() if line.strip().startswith("```")]
    assert sorted(kind for kind in fences[::2] if kind != "text") == ["bash", "js", "python"]
