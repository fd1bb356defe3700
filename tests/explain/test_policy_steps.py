"""The signed policy at the command line: minted in every form, explained step by step, mistakes named."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.core.registry import Registry
from presign_proxy.core.revocations import Revocations
from presign_proxy.explain.explain import explain
from presign_proxy.explain.explanation import Explanation
from presign_proxy.explain.input.paste import parse
from presign_proxy.limits.rules import Concurrency, Quota, Rate
from presign_proxy.signing.carrier_names import TERMS
from support.deciding import GATEWAY, NOW, SECRET, connection, registry, signed
from support.forking import Case, Runner
from support.policy import ORDER, Policy
from support.shell import Done, Shell
from support.signing import sign

BASE = f"https://{GATEWAY}"
CLIENT = "203.0.113.9"
EVERY = {
    "Not-Before": str(NOW - 9),
    "Client": "203.0.113.0/24",
    "Max-Body": "9",
    "Key": "k1",
    "Id": "nightly",
}
FOUR = ["conn", "0", "GET", "v1/*"]
PRESENT = [name for name in ORDER if name in EVERY]
LINES = [f"{name.lower()}:{EVERY[name]}" for name in PRESENT]
LABEL = "PRESIGN-HMAC-SHA256-2"


def explained(text: str, known: Registry | None = None, **how: str) -> Explanation:
    return explain(known or registry(), parse(text, **how).request, NOW)


def url(terms: dict[str, str], canonical: str | None = None, **changes: Any) -> str:
    return BASE + Policy(SECRET, terms, canonical=canonical, **changes).target("v1/models")


# -- explain ---------------------------------------------------------------------------------------------


def test_every_term_has_a_step_of_its_own() -> None:
    found = explained(url(EVERY))
    assert found.verdict.decision == "forward"
    steps = {step.name: step for step in found.steps}
    for name in ("policy", "not_before", "client", "body"):
        assert steps[name].outcome == "ok", name
    assert "X-Presign-Not-Before" in steps["policy"].text
    assert "nightly" in "\n".join(steps["policy"].lines)
    assert [line.rstrip("⏎") for line in steps["canonical"].lines[5:]] == LINES
    order = [step.name for step in found.steps]
    assert order.index("signature") < order.index("policy") < order.index("not_before")
    assert order.index("not_before") < order.index("expiry") < order.index("client") < order.index("methods")


def test_version_1_has_none_of_those_steps() -> None:
    steps = {step.name for step in explained(BASE + signed()).steps}
    assert not steps & {"policy", "not_before", "client", "body", "uses"}


@pytest.mark.parametrize(
    ("terms", "step", "status", "how"),
    [
        ({"Not-Before": str(NOW + 90)}, "not_before", 403, {}),
        ({"Client": "198.51.100.0/24"}, "client", 403, {"client": CLIENT}),
        ({"Client": "198.51.100.7/24"}, "policy", 400, {}),
        ({"Id": "a.b"}, "presign", 400, {}),
        ({"Key": "k2"}, "signature", 403, {}),
    ],
)
def test_a_refusal_is_told_at_its_step(
    terms: dict[str, str], step: str, status: int, how: dict[str, str]
) -> None:
    found = explained(url(terms), **how)
    assert (found.steps[-1].name, found.steps[-1].outcome) == (step, "refused")
    assert found.verdict.status == status


def test_a_body_that_is_too_large_is_told_at_its_step() -> None:
    found = explained(
        f"curl -d xxxxxxxxxxx -H 'Content-Length: 11' '{url({'Max-Body': '10'}, methods='POST')}'"
    )
    assert (found.steps[-1].name, found.verdict.status) == ("body", 413)


def test_a_revoked_name_is_told_at_revocation() -> None:
    known = Registry(
        {"conn": connection()}, frozenset({GATEWAY}), revoked=Revocations(ids=frozenset({"conn/nightly"}))
    )
    assert explained(url(EVERY), known).steps[-1].name == "revocation"


def test_no_client_is_assumed_that_is_not_admitted() -> None:
    presented = parse(url({"Client": "198.51.100.0/24"}))
    assert presented.request.client == "198.51.100.0"
    assert any("198.51.100.0 is assumed" in said for said in presented.assumed)
    assert parse(url({"Client": "198.51.100.0/24"}), client=CLIENT).request.client == CLIENT


# What the signer did, and the finding that names it.
MISTAKES = {
    "trailing_newline": "\n".join([LABEL, *FOUR, *LINES]) + "\n",
    "crlf": "\r\n".join([LABEL, *FOUR, *LINES]),
    "other_label": "\n".join(["PRESIGN-HMAC-SHA256", *FOUR, *LINES]),
    "no_label": "\n".join([*FOUR, *LINES]),
    "fields_swapped": "\n".join([LABEL, "conn", "0", "v1/*", "GET", *LINES]),
    "policy_not_signed": "\n".join(["PRESIGN-HMAC-SHA256", *FOUR]),
    "policy_empty_lines": "\n".join(
        [LABEL, *FOUR, *(f"{name.lower()}:{EVERY.get(name, '')}" for name in ORDER)]
    ),
    "policy_order": "\n".join([LABEL, *FOUR, *reversed(LINES)]),
    "policy_without_names": "\n".join([LABEL, *FOUR, *(EVERY[name] for name in PRESENT)]),
    "policy_names": "\n".join([LABEL, *FOUR, *(f"X-Presign-{name}={EVERY[name]}" for name in PRESENT)]),
    "changed_paths": "\n".join([LABEL, *FOUR[:3], "*", *LINES]),
    "other_separator": ":".join([LABEL, *FOUR, *LINES]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_of_a_signer_is_named(name: str) -> None:
    found = explained(url(EVERY, MISTAKES[name]))
    assert found.verdict.code == "invalid"
    assert name in [finding.name for finding in found.findings]


@pytest.mark.parametrize("line", ["X-Presign-Id:nightly", "Id:nightly", "id: nightly", "id=nightly"])
def test_a_name_that_a_signer_spelled_otherwise_is_told(line: str) -> None:
    found = explained(url({"Id": "nightly"}, "\n".join([LABEL, *FOUR, line])))
    assert [finding.name for finding in found.findings] == ["policy_names"]
    assert "id:…" in found.findings[0].text


def test_a_presign_of_version_1_that_was_signed_as_version_2_is_named() -> None:
    def told(text: str) -> list[str]:
        fields = f"X-Presign-Expires=0&X-Presign-Methods=GET&X-Presign-Paths=v1/*&X-Presign-Signature={text}"
        target = f"{BASE}/api/proxy/conn/v1/models?{fields}"
        return [finding.name for finding in explained(target).findings]

    assert told(sign(SECRET, "\n".join([LABEL, *FOUR]))) == ["policy_of_nothing"]


def test_a_key_that_is_not_the_one_that_is_named_is_told() -> None:
    found = explained(url({"Key": "k9"}))
    assert [finding.name for finding in found.findings] == ["other_key_named"]
    assert "k1" in found.findings[0].text and "k9" in found.findings[0].text


@pytest.mark.parametrize(
    ("terms", "name"),
    [
        ({"Not-Before": "1800000000000"}, "milliseconds"),
        ({"Not-Before": "0"}, "term_unreadable"),
        ({"Max-Uses": "0"}, "term_unreadable"),
        ({"Max-Body": "1K"}, "term_unreadable"),
        ({"Key": "a b"}, "term_unreadable"),
        ({"Id": ""}, "term_empty"),
        ({"Client": "office"}, "term_unreadable"),
        ({"Client": "203.0.113.9"}, "client_spelling"),
        ({"Client": "203.0.113.9/24"}, "client_spelling"),
        ({"Client": "203.0.113.0/24, 198.51.100.0/24"}, "client_spelling"),
        ({"Not-Before": "9", "Max-Bytes": "1"}, "look_alike"),
    ],
)
def test_a_misspelled_term_is_named(terms: dict[str, str], name: str) -> None:
    found = explained(url(terms))
    assert found.verdict.code == "malformed"
    assert name in [finding.name for finding in found.findings]


def test_a_token_of_the_wrong_version_is_named() -> None:
    two = Policy(SECRET, EVERY).token
    for text in (two.replace("ps2_", "ps1_"), Policy(SECRET, {}).token):
        assert "token_version" in [finding.name for finding in explained(text).findings]


@pytest.mark.parametrize(
    "lines", [["key:k1", "id:a"], ["id:a", "id:a"], ["id:"], ["Id:a"], ["id:a", "max-bytes:1"]]
)
def test_a_token_whose_policy_is_not_in_its_form_is_named(lines: list[str]) -> None:
    text = "\n".join([*FOUR, *lines])
    encoded = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    found = explained(f"ps2_{encoded}.{sign(SECRET, f'{LABEL}{chr(10)}{text}')}")
    assert found.verdict.code == "malformed"
    assert "token_fields" in [finding.name for finding in found.findings]


def test_a_term_that_was_changed_afterwards_is_not_explained_away() -> None:
    found = explained(url(EVERY).replace("Max-Body=9", "Max-Body=99"))
    assert [finding.name for finding in found.findings] == ["unexplained"]


# -- the command -----------------------------------------------------------------------------------------

API = ("--upstream", "http://127.0.0.1:9", "--auth", "bearer")
FLAGS = (
    *("--not-before", "2026-01-01T00:00:00Z", "--client", "203.0.113.9,198.51.100.0/24"),
    *("--client", "2001:db8::/32", "--max-body", "64K", "--bind-key", "--id", "nightly"),
)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    runner = Runner(Shell(tmp_path_factory.mktemp("runner")))
    yield runner
    runner.close()


@pytest.fixture
def run(started: Runner, tmp_path: Path) -> Callable[..., Done]:
    runner = started.at(Shell(tmp_path))

    def run(*argv: str, stdin: str = "", code: int = 0, **env: str) -> Done:
        done = runner.run(Case(argv, stdin, env))
        assert done.code == code, done.all
        return done

    run("init")
    run("connections", "add", "conn_a", *API, stdin="sk-KEY-0123456789\n")
    return run


def said(done: Done) -> Any:
    return json.loads(done.out)


def test_what_sign_mints_is_granted_in_every_form(run: Callable[..., Done]) -> None:
    made = said(run("sign", "conn_a", "v1/a", *FLAGS, "--json"))
    assert made["terms"] == {
        "not_before": 1767225600,
        "client": ["198.51.100.0/24", "2001:db8::/32", "203.0.113.9/32"],
        "max_body": 65536,
        "key": made["key"],
        "id": "nightly",
    }
    assert made["token"].startswith("ps2_")
    assert set(TERMS.values()) - set(made["headers"]) == {"X-Presign-Max-Uses"}
    for form in ("url", "headers", "token", "base-url", "key", "curl"):
        minted = run("sign", "conn_a", "v1/a", *FLAGS, "--as", form).out
        given = f"{minted.strip()}v1/a" if form == "base-url" else minted
        path = () if form in ("url", "base-url", "curl") else ("--path", "v1/a")
        verdict = said(run("verify", "-", *path, "--from", "203.0.113.9", "--json", stdin=given))
        assert verdict["decision"] == "forward", form
        refused = run("verify", "-", *path, "--from", "203.0.113.8", "--json", stdin=given, code=1)
        assert said(refused)["code"] == "client_not_allowed", form
    assert "ps2_" in run("sign", "conn_a", "v1/a", *FLAGS, "--as", "env").out
    assert "terms" not in said(run("sign", "conn_a", "v1/a", "--json"))


def test_convert_carries_a_policy_from_every_form_to_every_other(run: Callable[..., Done]) -> None:
    made = said(run("sign", "conn_a", "v1/a", *FLAGS, "--json"))
    headers = "\n".join(f"{name}: {value}" for name, value in made["headers"].items())
    for given in (made["url"], made["token"], headers):
        converted = said(run("convert", "-", "--path", "v1/a", "--json", stdin=given))
        for name in ("url", "token", "headers", "terms", "signature_id"):
            assert converted[name] == made[name], name


def test_a_name_is_revoked_and_taken_back(run: Callable[..., Done]) -> None:
    nightly = said(run("sign", "conn_a", "v1/a", "--id", "nightly", "--json"))["url"]
    weekly = said(run("sign", "conn_a", "v1/a", "--id", "weekly", "--json"))["url"]
    assert said(run("revoke", "--id", "conn_a/nightly", "--json")) == {
        "revoked": True,
        "what": "ids",
        "id": "conn_a/nightly",
    }
    assert said(run("verify", nightly, "--json", code=1))["code"] == "revoked"
    run("verify", weekly)
    assert "choose another --id" in run("sign", "conn_a", "v1/a", "--id", "nightly", code=1).all
    assert run("check").code == 0
    run("revoke", "--id", "conn_a/nightly", "--undo")
    run("verify", nightly)
    run("revoke", "--id", "conn_a/nightly", "--undo", code=1)
    run("revoke", "--id", "conn_b/nightly", code=1)
    for wrong in ("nightly", "conn_a/", "conn_a/a.b", "conn_a/a/b"):
        run("revoke", "--id", wrong, code=2)
    run("revoke", "--id", "conn_a/a", "--key", "conn_a/k1", code=2)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--not-before", "2h"), "it would never be valid"),
        (("--not-before", "soon"), "--not-before needs"),
        (("--not-before", ""), "--not-before needs"),
        (("--max-uses", "0"), "--max-uses"),
        (("--client", "203.0.113.9/24"), "203.0.113.0/24"),
        (("--client", "office"), "--client needs"),
        (("--client", "::ffff:10.0.0.1"), "client holds"),
        (("--max-body", "1KB"), "--max-body needs"),
        (("--max-body", "-1"), "--max-body needs"),
        (("--max-body", "999999999999G"), "max_body"),
        (("--id", "a.b"), "id is not"),
        (("--id", ""), "not be empty"),
        (("--secret-env", "HOME", "--bind-key"), "--bind-key"),
    ],
)
def test_a_slip_with_a_flag_is_an_error_and_not_another_grant(
    flags: tuple[str, ...], told: str, run: Callable[..., Done]
) -> None:
    done = run("sign", "conn_a", "v1/a", *flags, code=2)
    assert told in done.err
    assert not done.out


def test_a_key_that_does_not_exist_signs_nothing(run: Callable[..., Done]) -> None:
    assert "has no key" in run("sign", "conn_a", "v1/a", "--key", "k9", "--bind-key", code=1).err


def test_not_before_counts_from_now(run: Callable[..., Done]) -> None:
    made = said(run("sign", "conn_a", "v1/a", "--not-before", "10m", "--json"))
    assert abs(made["terms"]["not_before"] - time.time() - 600) < 60
    assert said(run("verify", made["url"], "--json", code=1))["code"] == "not_yet_valid"


def test_limits_are_told_with_what_they_allow_and_no_guess_at_what_is_left() -> None:
    limits = (Rate(60, 60, 10), Quota(5, "day"), Concurrency(2, "url"))
    known = registry(connection(limits=limits, max_uses=7))
    found = explained(BASE + signed("v1/models"), known)
    (told,) = [step for step in found.steps if step.name == "limits"]
    assert told.outcome == "note"
    assert told.lines == (
        "rate-60s-connection: 60 in 60 s, 10 at once",
        "quota-day-connection: 5, until the period ends",
        "concurrency-url: 2 at a time",
        "uses: 7 of this URL, ever",
    )
    assert "limits" not in {step.name for step in explained(BASE + signed("v1/models")).steps}
