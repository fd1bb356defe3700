"""presign-proxy: presigned URLs for any HTTP API, as a mitmproxy addon."""

from .prerequisites import check_python

check_python()  # before anything that an older Python cannot even read

from .signer import Signed, Signer  # noqa: E402 - after the check
from .terms import Terms  # noqa: E402 - after the check

__all__ = ["Signed", "Signer", "Terms"]
