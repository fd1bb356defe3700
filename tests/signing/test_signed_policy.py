"""The fields of a signed policy by themselves: where each bound lies, and what is said of a wrong one."""

from __future__ import annotations

import pytest

from presign_proxy.errors import Malformed
from presign_proxy.signing.signed_policy import (
    MAX_CLIENTS,
    PolicyText,
    Terms,
    check_written,
    lines_of,
    parse,
    read_lines,
    wrong_with,
)

WRONG = {
    "not_before": ("0", "is not a plain Unix time in seconds"),
    "max_uses": ("0", "is not a whole number from 1 on"),
    "client": ("10.0.0.0", "is not a comma-separated list of networks"),
    "max_body": ("-1", "is not a whole number of bytes"),
    "key": ("a/b", "is not 1 to 64 of A-Z a-z 0-9 _ . -"),
    "id": ("a.b", "is not 1 to 64 of A-Z a-z 0-9 _ -"),
}
GOOD = PolicyText(client="10.0.0.0/8", id="a", key="k.1", max_body="0", max_uses="2", not_before="1")


def refused(written: PolicyText) -> str:
    with pytest.raises(Malformed) as caught:
        check_written(written)
    return caught.value.detail


@pytest.mark.parametrize("name", PolicyText._fields)
def test_the_field_that_is_wrong_is_named_with_what_is_wrong_with_it(name: str) -> None:
    value, why = WRONG[name]
    assert wrong_with(name, value) == why
    for among in (GOOD, PolicyText()):
        assert refused(among._replace(**{name: value})) == f"{name} {why}"


@pytest.mark.parametrize("name", PolicyText._fields)
def test_nothing_is_said_of_a_field_that_is_right(name: str) -> None:
    assert wrong_with(name, getattr(GOOD, name)) == ""
    check_written(GOOD)
    check_written(PolicyText(**{name: getattr(GOOD, name)}))


def test_the_lines_of_a_policy_are_read_as_they_are_written() -> None:
    for written in (GOOD, PolicyText(), *(PolicyText(**{name: "1"}) for name in PolicyText._fields)):
        read = read_lines(lines_of(written))
        assert PolicyText(**read) == written
        assert all(read.values())


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["id:"], "not a known field with a value"),
        (["id"], "not a known field with a value"),
        ([""], "not a known field with a value"),
        (["max_uses:1"], "not a known field with a value"),
        (["id:a", "zone:1"], "not a known field with a value"),
        (["key:a", "id:a"], "not sorted by name"),
        (["id:a", "id:b"], "given twice"),
    ],
)
def test_lines_in_any_other_form_are_refused(lines: list[str], why: str) -> None:
    with pytest.raises(Malformed, match=why):
        read_lines(lines)


def test_a_policy_of_eight_kibibytes_is_read_and_one_byte_more_is_not() -> None:
    longest = PolicyText(client="1" * (8192 - len("client:/8\n")) + "/8")
    check_written(longest)
    more = longest._replace(client=f"1{longest.client}")
    assert refused(more) == "the signed policy is longer than 8192 bytes"


def test_sixty_four_networks_are_a_list_and_one_more_is_not() -> None:
    networks = sorted(f"10.{n}.0.0/16" for n in range(65))
    assert MAX_CLIENTS == 64
    assert len(parse(PolicyText(client=",".join(networks[:64]))).clients) == 64
    with pytest.raises(Malformed, match="more than 64"):
        parse(PolicyText(client=",".join(networks)))


def test_terms_that_every_request_of_a_url_shares_cannot_be_changed_by_one() -> None:
    shared = parse(GOOD)
    assert shared is parse(GOOD)
    with pytest.raises(AttributeError):
        shared.max_uses = 9  # type: ignore[misc]
    with pytest.raises(AttributeError):
        object.__setattr__(shared, "uses", 9)
    assert shared == Terms(1, 2, shared.clients, 0, "k.1", "a")
