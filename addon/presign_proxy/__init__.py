"""presign-proxy: presigned URLs for any HTTP API, as a mitmproxy addon.

`Signer`, `Signed` and `Terms` are imported on first use. The command `presign` and the addon import this
package too, and need none of them.
"""

from .prerequisites import check_python

check_python()  # before anything that an older Python cannot even read

from importlib import import_module  # noqa: E402 - after the check
from typing import TYPE_CHECKING, Any, Final  # noqa: E402 - after the check

if TYPE_CHECKING:
    from .signing.signed_policy import Terms
    from .signing.signer import Signed, Signer

__all__ = ["Signed", "Signer", "Terms"]

_IN: Final = {"Signed": ".signing.signer", "Signer": ".signing.signer", "Terms": ".signing.signed_policy"}


def __getattr__(name: str) -> Any:
    if name not in _IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_IN[name], __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(globals().keys() | set(__all__))
