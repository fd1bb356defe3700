"""The schema of limits in a configuration."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PlainValidator, Tag, WithJsonSchema

from ...limits.rules import Calendar, Concurrency, Limit, Per, Quota, Rate

_PERIODS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_RATE: Final = r"([1-9][0-9]{0,8})/(second|minute|hour|day)"
_QUOTA: Final = r"([1-9][0-9]{0,11})/(day|month)"
MOST_PER_SECOND: Final = 10_000
"""Instants are counted in microseconds. At higher rates the rounding would distort the limit."""


def _rate(value: Any) -> tuple[int, int]:
    match = re.fullmatch(_RATE, value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("has to be a rate, as in 60/minute: a number, and second, minute, hour or day")
    count, period = int(match[1]), _PERIODS[match[2]]
    if count > MOST_PER_SECOND * period:
        raise ValueError(f"is more than {MOST_PER_SECOND} a second: leave the limit out")
    return count, period


def _quota(value: Any) -> tuple[int, Calendar]:
    match = re.fullmatch(_QUOTA, value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("has to be a quota, as in 1000/month: a number, and day or month")
    return int(match[1]), "day" if match[2] == "day" else "month"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    per: Per = "connection"
    on_store_failure: Literal["deny", "allow"] = "deny"

    @property
    def fail_open(self) -> bool:
        return self.on_store_failure == "allow"


class RateEntry(_Entry):
    """A number of requests in a period. `burst` of them, by default all, may come at once."""

    rate: Annotated[
        tuple[int, int], PlainValidator(_rate), WithJsonSchema({"type": "string", "pattern": f"^{_RATE}$"})
    ]
    burst: Annotated[int, Field(ge=1, le=1_000_000)] | None = None

    def limit(self) -> Limit:
        count, period = self.rate
        return Rate(count, period, self.burst or count, self.per, self.fail_open)


class QuotaEntry(_Entry):
    """A number of requests in a day or a month of the UTC calendar."""

    quota: Annotated[
        tuple[int, Calendar],
        PlainValidator(_quota),
        WithJsonSchema({"type": "string", "pattern": f"^{_QUOTA}$"}),
    ]

    def limit(self) -> Limit:
        return Quota(*self.quota, self.per, self.fail_open)


class ConcurrencyEntry(_Entry):
    """A number of requests at the same time. A stream counts until it ends."""

    concurrency: Annotated[int, Field(ge=1, le=100_000)]

    def limit(self) -> Limit:
        return Concurrency(self.concurrency, self.per, self.fail_open)


def _kind(value: Any) -> str:
    """Return the tag of an entry.

    No tag equals a key of the file: `validation` drops tags from the location of an error, and keeps keys.
    """
    given = value if isinstance(value, dict) else {}
    return next((f"a {kind}" for kind in ("rate", "quota", "concurrency") if kind in given), "a rate")


LimitEntry = Annotated[
    Annotated[RateEntry, Tag("a rate")]
    | Annotated[QuotaEntry, Tag("a quota")]
    | Annotated[ConcurrencyEntry, Tag("a concurrency")],
    Discriminator(_kind),
]
