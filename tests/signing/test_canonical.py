"""What is signed, byte for byte as published."""

import json
from typing import Any

import pytest

from presign_proxy.signing import canonical
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
