"""What a holder with a good signature is told: what is in the presign, and when to come again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from presign_proxy.core.ceiling import Ceiling
from presign_proxy.core.decision import Deny
from presign_proxy.core.registry import Registry
from presign_proxy.errors import MESSAGE
from presign_proxy.http.patterns import pattern
from support.deciding import NOW, SECRET, ask, connection, registry, request, signed
from support.policy import Policy

UNTIL = "2027-01-15T08:01:00Z"
"""NOW and a minute."""


def told(asked: Any, known: Registry | None = None) -> str:
    decision = ask(asked, known)
    assert isinstance(decision, Deny)
    return decision.sentence or MESSAGE[decision.code]


def policed(**terms: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in terms.items()}
    return request(Policy(SECRET, named).target("v1/models"), client="203.0.113.9")


def test_an_expired_one_says_since_when() -> None:
    assert told(request(signed(expires=NOW - 90))) == (
        "This presigned request expired 1 min 30 seconds ago, at 2027-01-15T07:58:30Z."
    )


def test_one_that_is_not_valid_yet_says_from_when() -> None:
    assert told(policed(Not_Before=str(NOW + 60))) == (
        f"This presigned request is valid from {UNTIL} on: in 1 min."
    )


@pytest.mark.parametrize(
    ("asked", "signed_text"),
    [
        (request(signed(), method="POST"), f"methods GET; paths v1/*; valid until {UNTIL}."),
        (request(signed("v2/models")), f"methods GET; paths v1/*; valid until {UNTIL}."),
        (request(signed("v2/models", expires=0)), "methods GET; paths v1/*; valid without expiry."),
    ],
)
def test_what_is_signed_is_said(asked: Any, signed_text: str) -> None:
    assert told(asked).endswith(f"Signed: {signed_text}")


def test_a_client_elsewhere_learns_where_it_may_be() -> None:
    assert told(policed(Client="10.0.0.0/8")).endswith("It is for clients in 10.0.0.0/8.")


def test_a_body_that_is_too_large_learns_how_large_it_may_be() -> None:
    asked = policed(Max_Body="9")
    asked = asked._replace(fields=(*asked.fields, (b"Content-Length", b"10")))
    assert told(asked) == "The body of this request is larger than the 9 bytes that were signed."


def test_a_slash_that_the_connection_refuses_is_still_named() -> None:
    text = told(request(signed("v1/a%2Fb")))
    assert "allow_encoded_slash" in text
    assert "Signed: methods GET; paths v1/*" in text


def test_long_lists_are_cut() -> None:
    paths = ",".join(f"v{number:04}/{'x' * 60}" for number in range(60))
    assert len(told(request(signed(paths=paths)))) < 600


def test_nothing_is_said_before_a_good_signature() -> None:
    for target in (signed("v2/models"), signed(expires=NOW - 9)):
        forged = target[:-1] + format(int(target[-1], 16) ^ 1, "x")
        assert told(request(forged)) == MESSAGE["invalid"]


def test_the_ceiling_of_the_owner_is_not_told() -> None:
    narrow = registry(replace(connection(), ceiling=Ceiling(max_lifetime=30)))
    text = told(request(signed()), narrow)
    assert "30" not in text.replace(UNTIL, "")


@pytest.mark.parametrize(
    ("ceiling", "asked", "what"),
    [
        (Ceiling(methods=("POST",)), request(signed()), "method"),
        (Ceiling(paths=(pattern("v2/*"),)), request(signed()), "path"),
    ],
)
def test_who_was_signed_for_more_than_the_connection_allows_is_told_so(
    ceiling: Ceiling, asked: Any, what: str
) -> None:
    """Not that the path is none of the signed ones, beside a list in which it is."""
    text = told(asked, registry(replace(connection(), ceiling=ceiling)))
    assert text.startswith(f"The connection itself does not allow the {what} of this request")
    assert "Signed: methods GET; paths v1/*" in text
    assert "v2" not in text and "POST" not in text
