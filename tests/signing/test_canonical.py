"""What is signed, byte for byte as published."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from presign_proxy.signing import canonical
from presign_proxy.signing.signed_policy import PolicyText
from support.deciding import NOW, ring
from support.places import TESTS

VECTORS = json.loads((TESTS / "data" / "seed_vectors.json").read_text("utf-8"))


@pytest.mark.parametrize("vector", VECTORS["presign"], ids=lambda vector: vector["signature"][:8])
def test_a_published_presign_verifies(vector: dict[str, Any]) -> None:
    methods, paths = ",".join(sorted(vector["methods"])), ",".join(sorted(vector["paths"]))
    message = canonical.presign(vector["connection_id"], str(vector["expires"]), methods, paths)
    assert message.decode() == vector["canonical"]
    keys = ring(vector["signing_secret"])
    assert keys.verify(message, vector["signature"], NOW) is keys.keys[0]


@pytest.mark.parametrize("vector", VECTORS["source_url"], ids=lambda vector: vector["signature"][:8])
def test_a_published_source_verifies(vector: dict[str, Any]) -> None:
    message = canonical.source(vector["project_key"], vector["source_url"], str(vector["expires"]))
    assert message.decode() == vector["signed_string"]
    keys = ring(vector["signing_secret"])
    assert keys.verify(message, vector["signature"], NOW) is keys.keys[0]


def test_the_canonical_strings_are_those_of_the_seeds() -> None:
    assert canonical.presign("c", "1", "GET", "ü") == "PRESIGN-HMAC-SHA256\nc\n1\nGET\nü".encode()
    assert canonical.source("pk", "https://a/ü", "1") == "pk:https://a/ü:1".encode()


# Values as a signer under attack would be given them: what is a line elsewhere, and the names of all fields.
TEXT = st.one_of(
    st.text("abz019,/*:-", max_size=6),
    st.sampled_from(
        ["client:10.0.0.0/8", "id:a", "key:k1", "max-body:9", "PRESIGN-HMAC-SHA256", "conn", "GET"]
    ),
)
GRANT = st.tuples(TEXT, TEXT, TEXT, TEXT)
POLICY = st.builds(PolicyText, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT)


@given(GRANT, POLICY, GRANT, POLICY)
@settings(max_examples=1000)
def test_two_grants_never_have_one_canonical_string(
    one: tuple[str, ...], its: PolicyText, other: tuple[str, ...], others: PolicyText
) -> None:
    """No value holds a newline: that is refused before. So only a field makes a line."""
    same = (one, its) == (other, others)
    assert (canonical.policy(*one, its) == canonical.policy(*other, others)) is same
    assert canonical.presign(*one) != canonical.policy(*other, others)


def test_the_lines_of_a_policy_are_sorted_by_their_names() -> None:
    every = PolicyText(client="10.0.0.0/8", id="a", key="k1", max_body="0", max_uses="2", not_before="3")
    lines = canonical.policy("c", "1", "GET", "x", every).decode().split("\n")[5:]
    assert lines == ["client:10.0.0.0/8", "id:a", "key:k1", "max-body:0", "max-uses:2", "not-before:3"]
    assert lines == sorted(lines)
