"""What a signer says of a path that it cannot sign as it stands."""

import pytest

from presign_proxy.signing.signer import Signer
from support.deciding import NOW, SECRET, code, request


def test_a_signer_says_how_a_comma_in_a_path_is_signed() -> None:
    signer = Signer("conn", SECRET)
    with pytest.raises(ValueError, match="signed as %2C"):
        signer.sign(["GET"], ["v1/a,b"], expires_at=NOW + 60)
    grant = signer.sign(["GET"], ["v1/a%2Cb"], expires_at=NOW + 60)
    assert code(request(grant.url("v1/a,b", ""))) == "forward"
