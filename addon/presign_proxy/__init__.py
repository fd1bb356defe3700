"""presign-proxy: presigned URLs for any HTTP API, as a mitmproxy addon."""

from .signer import Signed, Signer
from .terms import Terms

__all__ = ["Signed", "Signer", "Terms"]
