"""Revocations of URLs that have expired, and need not be remembered any more."""

from __future__ import annotations

from typing import Final

from ..config.registry_file.edit import Draft
from ..config.values import instant as parse_instant

GRACE: Final = 86_400
"""Seconds for which a revoked URL is remembered after its expiry, because clocks differ."""


def forget_expired(draft: Draft, now: float) -> None:
    """Forget revoked URLs that have expired by this clock and by most clocks that have revoked URLs here.

    A clock that is ahead must not forget a revocation of a URL that is still valid: the clock will be
    corrected. So the present is taken as no later than the median of the instants of these revocations.
    """
    urls = draft.revoked("urls")
    known = sorted(parse_instant(one["at"]) for one in urls.values())
    over = min(now, known[len(known) // 2]) - GRACE if known else 0.0
    for name in [name for name, one in urls.items() if 0 < (one.get("expires") or 0) < over]:
        del urls[name]
