"""A secret is shown by nothing but `reveal`: whatever a careless log call, traceback or copy makes of it."""

from __future__ import annotations

import copy
import pickle
import traceback
from typing import NoReturn

import pytest

from presign_proxy.signing.secret import LateSecret, Secret

TEXT = "sk-REALSECRET-0123456789"


@pytest.mark.parametrize(
    "show", [repr, str, "{}".format, "{!r:>60}".format, "%s".__mod__, lambda it: repr([it])]
)
def test_a_careless_log_call_shows_no_secret(show) -> None:
    assert "REALSECRET" not in show(Secret(TEXT))
    assert Secret(TEXT).reveal() == TEXT


@pytest.mark.parametrize("taken", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_secret_is_not_written_where_an_object_is_saved(taken) -> None:
    with pytest.raises(TypeError, match="not serialised"):
        taken(Secret(TEXT))


def test_a_traceback_that_shows_locals_shows_no_secret() -> None:
    def fail(secret: Secret) -> NoReturn:
        raise ValueError(secret)

    with pytest.raises(ValueError) as failed:
        fail(Secret(TEXT))
    told = traceback.TracebackException.from_exception(failed.value, capture_locals=True)
    assert "REALSECRET" not in "".join(told.format())


def test_two_secrets_with_one_text_are_not_equal() -> None:
    """Comparing them would tell by its time how much of a guess is right."""
    assert Secret(TEXT) != Secret(TEXT)


def test_a_secret_that_was_not_fetched_is_an_error_and_no_empty_key() -> None:
    with pytest.raises(LookupError):
        LateSecret(("printf", "x"), 60).reveal()
