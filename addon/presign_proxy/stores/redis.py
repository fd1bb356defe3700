"""Counters of a whole fleet: Redis 7, Valkey, or what speaks their protocol and their Lua."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ..limits.tally import GRACE, LEASE, Tally, Weighed
from ..limits.verdict import Verdict
from ..secret import Secret
from . import Lease, StoreError

try:
    from redis import asyncio as client
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import NoScriptError, RedisError
except ImportError:  # an extra
    client = None  # type: ignore[assignment]

TIMEOUT: Final = 0.25
"""Seconds for connecting, and for each answer."""
MAX_CONNECTIONS: Final = 64
_ADMIT: Final = (Path(__file__).parent / "admit.lua").read_text("utf-8")
_DURABLE: Final = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
_OLDEST: Final = 7


class RedisStore:
    """One script, one round trip. Instants are the server's: the clocks of the fleet do not matter."""

    def __init__(
        self, url: str, password: Secret | None = None, ca: Path | None = None, now: int = 0
    ) -> None:
        """
        Args:
            url: redis:// or rediss://, with a user name and a database, without a password.
            ca: authorities for rediss://, instead of the system's.
            now: Unix time in microseconds to count with, instead of the server's.

        Raises StoreError where the URL is none, or the extra is not installed.
        """
        if client is None:
            raise StoreError("redis:// needs an extra: pip install 'presign-proxy[redis]'")
        more: dict[str, Any] = {"ssl_ca_certs": str(ca)} if ca else {}
        if password is not None:
            more["password"] = password.reveal()
        try:
            self._pool = client.BlockingConnectionPool.from_url(
                url,
                max_connections=MAX_CONNECTIONS,
                timeout=TIMEOUT,
                socket_timeout=TIMEOUT,
                socket_connect_timeout=TIMEOUT,
                # A second attempt at what may have been counted would count it twice.
                retry=Retry(NoBackoff(), 0),
                **more,
            )
        except ValueError:
            raise StoreError("the store is not a URL as in redis://127.0.0.1:6379/0") from None
        self._redis = client.Redis(connection_pool=self._pool)
        self._script = self._redis.register_script(_ADMIT)
        self.now = now

    async def admit(self, tallies: Sequence[Tally], holder: str) -> Verdict:
        arguments: list[str | int] = [holder, LEASE, GRACE, self.now]
        for tally in tallies:
            arguments += [tally.kind, tally.limit, tally.interval or tally.until]
        keys = [tally.key for tally in tallies]
        with _failures():
            answer = await self._evaluate(keys, arguments)
            said = zip(*(iter(answer),) * 3, strict=True)
            return Verdict(tuple([Weighed(fits == 1, 0, left, wait) for fits, left, wait in said]))

    async def _evaluate(self, keys: list[str], arguments: list[str | int]) -> list[int]:
        """The script; sent along where the server does not have it any more, having counted nothing then."""
        try:
            found = await self._redis.evalsha(self._script.sha, len(keys), *keys, *arguments)
        except NoScriptError:
            found = await self._redis.eval(_ADMIT, len(keys), *keys, *arguments)
        if len(found) != 3 * len(keys):
            raise StoreError("the store answers something else than was asked")
        return list(found)

    async def renew(self, leases: Sequence[Lease]) -> None:
        with _failures():
            now = self.now or await self._clock()
            async with self._redis.pipeline(transaction=False) as batch:
                for key, holder in leases:
                    batch.zadd(key, {holder: now + LEASE})
                    batch.pexpire(key, LEASE // 1000)
                await batch.execute()

    async def release(self, leases: Sequence[Lease]) -> None:
        with _failures():
            async with self._redis.pipeline(transaction=False) as batch:
                for key, holder in leases:
                    batch.zrem(key, holder)
                await batch.execute()

    async def _clock(self) -> int:
        seconds, rest = await self._redis.time()
        return int(seconds) * 1_000_000 + int(rest)

    async def warnings(self) -> list[str]:
        with _failures():
            found = []
            version = str((await self._redis.info("server")).get("redis_version", "0"))
            if int(version.partition(".")[0]) < _OLDEST:
                found.append(f"the store is version {version}; it has to be {_OLDEST} or later")
            try:
                answer = await self._redis.config_get(*_DURABLE)
            except RedisError:
                return [*found, "the store does not tell its configuration: it may lose counts"]
            said = {_text(name): _text(value) for name, value in answer.items()}
            for name, wanted in _DURABLE.items():
                if (is_now := said.get(name, "")) != wanted:
                    found.append(f"the store has {name} {is_now}; only with {wanted} is no count ever lost")
            return found

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            await self._redis.aclose()
            await self._pool.disconnect()


def _text(value: str | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """Whatever goes wrong is a StoreError. Only its kind is told: texts quote what was sent."""
    try:
        yield
    except StoreError:
        raise
    except (RedisError, OSError, TimeoutError, ValueError, TypeError) as error:
        raise StoreError(f"the store failed ({type(error).__name__})") from None
