"""The limits of a connection, and the counters that one request must fit into."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Final, Literal, NamedTuple

from ..signing import grammar
from .counter import SECOND, Counter

Per = Literal["connection", "url", "client"]
Calendar = Literal["day", "month"]

PREFIX: Final = "presign"
_SIGNATURE_ID: Final = re.compile(grammar.SIGNATURE_ID)
_DAY: Final = 86_400


class Requester(NamedTuple):
    """The parties for which a request is counted.

    Args:
        connection: the id of the connection.
        url: the signature id; for an unsigned source, its URL.
        client: the IPv4 address, or the IPv6 network, that counts as one client.
        expires: Unix time at which the presign expires; 0 for never.
    """

    connection: str
    url: str
    client: str
    expires: int

    def key(self, kind: str, per: Per) -> str:
        """Return the key of a counter. Ids contain only letters, digits, _ and -, so the parts stay apart."""
        return f"{PREFIX}:{{{self.connection}}}:{kind}:{per}{self._part(per)}"

    def _part(self, per: Per) -> str:
        if per == "connection":
            return ""
        if per == "client":
            return ":" + self.client
        # Never put a URL into a store: it may contain private data.
        return ":" + (self.url if _is_signature_id(self.url) else sha256(self.url.encode()).hexdigest()[:32])


def _is_signature_id(text: str) -> bool:
    return _SIGNATURE_ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` requests in `period` seconds, spread evenly. `burst` of them may come at once."""

    count: int
    period: int
    burst: int
    per: Per = "connection"
    fail_open: bool = False

    @property
    def name(self) -> str:
        return f"rate-{self.period}s-{self.per}"

    def counter(self, who: Requester, now: int) -> Counter:
        del now
        # Rounded up, so that never more requests pass than were allowed.
        interval = -(-self.period * SECOND // self.count)
        key = who.key(f"rate:{self.period}", self.per)
        return Counter(
            self.name, "rate", key, self.burst, interval, 0, self.period, self.count, self.fail_open
        )


@dataclass(frozen=True, slots=True)
class Quota:
    """`count` requests in a day or a month of the UTC calendar."""

    count: int
    calendar: Calendar
    per: Per = "connection"
    fail_open: bool = False

    @property
    def name(self) -> str:
        return f"quota-{self.calendar}-{self.per}"

    def counter(self, who: Requester, now: int) -> Counter:
        begun, ends = _window(self.calendar, now // _DAY)
        # The limit is not part of the key, so that a changed limit keeps the count.
        key = who.key(f"quota:{begun}", self.per)
        return Counter(self.name, "count", key, self.count, 0, ends, ends - now, self.count, self.fail_open)


@dataclass(frozen=True, slots=True)
class Concurrency:
    """`count` requests at the same time, each until its response has ended."""

    count: int
    per: Per = "connection"
    fail_open: bool = False

    @property
    def name(self) -> str:
        return f"concurrency-{self.per}"

    def counter(self, who: Requester, now: int) -> Counter:
        del now
        key = who.key("slots", self.per)
        return Counter(self.name, "slots", key, self.count, quota=self.count, fail_open=self.fail_open)


Limit = Rate | Quota | Concurrency


def tallies_of(
    limits: Sequence[Limit], max_uses: int | None, who: Requester, now: int
) -> tuple[Counter, ...]:
    """Return the counters of one request. No two of them have the same key.

    Args:
        max_uses: how often this URL may be used; None for any number.
        now: Unix time in seconds.
    """
    found = tuple([limit.counter(who, now) for limit in limits])
    return found if max_uses is None else (*found, _uses(max_uses, who))


def _uses(count: int, who: Requester) -> Counter:
    """Return the counter for the uses of one URL, over all time. It never fails open."""
    return Counter("uses", "count", who.key("uses", "url"), count, until=who.expires, quota=count)


@lru_cache(maxsize=8)
def _window(calendar: Calendar, day: int) -> tuple[str, int]:
    """Return the name of the day or month that contains a day (since 1970), and its end as Unix time."""
    begun = datetime.fromtimestamp(day * _DAY, UTC)
    if calendar == "day":
        return begun.strftime("%Y-%m-%d"), (day + 1) * _DAY
    first = begun.replace(day=1)
    following = (first + timedelta(days=32)).replace(day=1)
    return first.strftime("%Y-%m"), int(following.timestamp())
