"""Which name somebody meant who wrote another one."""

from __future__ import annotations

import pytest

from presign_proxy.similar_names import alike, did_you_mean, misspelt

NAMES = ("openai", "azure-openai", "cohere", "github", "gitlab", "git", "serve", "sign", "conn_openai")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("opnai", ["openai"]),
        ("OpenAI", ["openai"]),
        ("azure_opneai", ["azure-openai"]),
        ("sing", ["sign"]),
        ("serv", ["serve"]),
        ("conn_opena", ["conn_openai"]),
        ("github-api", ["github"]),
        ("cohe", ["cohere"]),
    ],
)
def test_a_slip_is_understood(typed: str, meant: list[str]) -> None:
    assert alike(typed, NAMES) == meant


@pytest.mark.parametrize("typed", ["nowhere", "a", "", "st", "openxx", "x" * 100_000])
def test_nothing_is_guessed(typed: str) -> None:
    assert alike(typed, NAMES) == []


def test_names_that_are_all_as_near_are_no_answer() -> None:
    assert did_you_mean("conn_x", ["conn_a", "conn_b"]) == "did you mean conn_a or conn_b?"
    assert did_you_mean("conn_x", ["conn_a", "conn_b", "conn_c"]) == ""


def test_who_writes_a_known_name_in_the_wrong_place_is_not_asked_whether_it_was_meant() -> None:
    assert did_you_mean("revoked", ["revoked", "upstream"]) == ""


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "SEARCH")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("GETT", ["GET"]),
        ("GTE", ["GET"]),
        ("PUST", ["POST", "PUT"]),
        ("DELET", ["DELETE"]),
        ("OPTIOSN", ["OPTIONS"]),
        ("M-SEARCH", []),
        ("PREPATCH", []),
        ("OPTION", ["OPTIONS"]),
        ("OPTI", []),
        ("PURGE", []),
        ("G", []),
        ("X" * 100_000, []),
    ],
)
def test_only_one_slip_makes_a_name_of_another_one(typed: str, meant: list[str]) -> None:
    assert sorted(misspelt(typed, METHODS)) == meant
