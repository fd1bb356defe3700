"""Names of headers: none reaches the upstream that tells it who asks, for which host, method or path."""

import re

import pytest
import yaml

from presign_proxy.config.presets.builtin import providers
from presign_proxy.core.connection import Conduct
from presign_proxy.core.strip_list import is_credential
from presign_proxy.http.field_names import header_key
from support import thirdparty
from support.deciding import code, connection, registry, request, sent, signed
from support.places import ROOT, TESTS

NAMES = yaml.safe_load((TESTS / "data" / "client_headers.yaml").read_text("utf-8"))
GONE = NAMES["gone"]


@pytest.mark.parametrize("what", GONE)
def test_a_header_that_front_ends_set_does_not_reach_the_upstream(what: str) -> None:
    for name in GONE[what].split():
        for spelling in (name, name.lower(), name.replace("-", "_"), name.replace("-", "--")):
            fields = sent(request(signed(), (spelling.encode(), b"attacker"))).sent.fields
            assert b"attacker" not in [value for _, value in fields], spelling


def test_a_credential_of_the_clients_own_is_rejected_where_the_connection_says_so() -> None:
    known = registry(connection(conduct=Conduct(reject_client_credentials=True)))
    for name in GONE["a credential of the client's own"].split():
        if not name.startswith("Cookie"):
            assert code(request(signed(), (name.encode(), b"sk-mine")), known) == "malformed", name


def test_a_key_of_the_clients_own_for_any_provider_of_a_preset_is_a_credential() -> None:
    """Whatever the connection itself fills: beside it, a second key would reach the upstream."""
    auths = [preset["auth"] for preset in providers().values() if preset["auth"]["type"] == "header"]
    headers = {auth["header"] for auth in auths if "header" in auth} | {
        name for auth in auths for name in auth.get("asks", ())
    }
    assert len(headers) > 20
    passing = [name for name in headers if not is_credential(header_key(name.encode()))]
    assert passing == ["X-Algolia-Application-Id"]  # which is in every page that searches


@pytest.mark.parametrize("name", NAMES["kept"].split())
def test_a_header_of_the_apis_own_stays(name: str) -> None:
    assert (name.encode(), b"v") in sent(request(signed(), (name.encode(), b"v"))).sent.fields


def documented() -> list[str]:
    """Names of headers in the table of what is taken off; `…` stands for any word."""
    page = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    table = page.partition("### What is taken off a request")[2].partition("A header that would")[0]
    rows = [re.sub(r"\(.*?\)", "", row) for row in table.splitlines() if row.startswith("| ")]
    return [
        name.replace("…", "word") for row in rows for name in re.findall(r"`([A-Za-z-]+…?|…[A-Za-z-]+)`", row)
    ]


def test_every_header_that_the_documentation_names_is_taken_off() -> None:
    names = documented()
    assert len(names) > 40
    for name in names:
        value = b"http://presign.local/?X-Presign-Signature=attacker" if name == "Referer" else b"attacker"
        asked = request(signed(), (name.encode(), value))
        if name.startswith("X-Presign-"):
            assert code(asked) == "malformed"
        else:
            assert not [one for _, one in sent(asked).sent.fields if b"attacker" in one], name


# -- PortSwigger/param-miner ----------------------------------------------------------------------------


SUSPICIOUS = re.compile(
    r"(^|[-_])(ip|addr|address|host|user|uid|userid|username|uri|url|path|method|scheme|proto|protocol|port|cert|auth"
    r"|token|key|secret|identity|https|ssl|rewrite|override|route|routing|remap|subrequest|subdomain)([-_]|$)"
    r"|forward|remote|client-?ip|real|msisdn|passw|impersonat|apikey|origin"
)


def test_no_name_of_param_miner_changes_routing_or_identity() -> None:
    """Each is taken off, or there is a reason that it may pass."""
    folder = thirdparty.folder("param-miner", "resources")
    lines = [line for file in ("headers", "boring_headers") for line in (folder / file).read_text().split()]
    names = sorted({line.partition("~")[0] for line in lines} - {""})
    plain, argued = (
        {why: re.compile(pattern, re.VERBOSE) for why, pattern in table.items()}
        for table in (NAMES["harmless"], NAMES["argued"])
    )
    passed = dict.fromkeys((*NAMES["harmless"], *NAMES["argued"]), 0)
    unexplained, refused = [], []
    for name in names:
        asked = request(signed(), (name.encode(), b"attacker"))
        if (answer := code(asked)) != "forward":
            refused.append((name, answer))
            continue
        if b"attacker" not in [value for _, value in sent(asked).sent.fields]:
            continue
        reasons = argued if SUSPICIOUS.search(name) else plain
        why = next((why for why, pattern in reasons.items() if pattern.fullmatch(name)), None)
        if why is None:
            unexplained.append(name)
        else:
            passed[why] += 1
    assert not unexplained, unexplained
    print(f"of {len(names)} names, passed {sum(passed.values())}, refused {refused}: {passed}")
    assert len(names) > 1000
