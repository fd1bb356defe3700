"""The table of grants: what is asked for, is a key of the configuration."""

from __future__ import annotations

from presign_proxy.config.auth_types import AUTH_TYPES, places_of
from presign_proxy.core.grants import GRANTS


def test_each_grant_asks_for_secrets_that_are_masked() -> None:
    for name, grant in GRANTS.items():
        assert set(grant.asks) <= set(AUTH_TYPES["oauth2"].places)
        assert places_of("oauth2", name) == grant.asks
        assert ("private_key" in grant.asks) is grant.is_signed
    assert places_of("oauth2", None) == GRANTS["client_credentials"].asks


def test_no_two_grants_look_alike_on_the_wire() -> None:
    assert len({grant.on_the_wire for grant in GRANTS.values()}) == len(GRANTS)
