"""The certificate of a client: named by its thumbprint, and only beside its own key."""

from __future__ import annotations

import pytest

from presign_proxy.core.certificate import BAD_CERTIFICATE, NOT_OF_KEY, thumbprint
from support.private_keys import certificate, ec_key, pem, rsa_key
from support.private_keys import thumbprint as expected


def test_the_first_certificate_of_a_chain_is_named() -> None:
    own = certificate(rsa_key())
    assert thumbprint(own, rsa_key()) == expected(own)
    assert thumbprint(pem(rsa_key()) + own + certificate(ec_key(), "ca"), rsa_key()) == expected(own)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", BAD_CERTIFICATE),
        (pem(rsa_key()), BAD_CERTIFICATE),
        ("-----BEGIN CERTIFICATE-----\nR3AL\n-----END CERTIFICATE-----\n", BAD_CERTIFICATE),
        (certificate(ec_key()), NOT_OF_KEY),
    ],
)
def test_what_is_no_certificate_of_the_key_is_refused_without_repeating_it(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        thumbprint(text, rsa_key())
