"""Counters of a whole fleet: Redis 7, Valkey, or what speaks their protocol and their Lua."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ...signing.secret import Secret
from ..counter import GRACE, LEASE, Counter, Weighed
from ..verdict import Verdict
from .store import Declined, Lease, StoreError

try:
    from redis.asyncio import ConnectionPool
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.client import Redis
    from redis.exceptions import (
        AskError,
        AuthenticationError,
        ClusterCrossSlotError,
        ClusterError,
        MasterDownError,
        NoPermissionError,
        NoScriptError,
        OutOfMemoryError,
        ReadOnlyError,
        RedisError,
        TryAgainError,
    )
    from redis.retry import Retry as RetryInTurn

    from .redis_pipeline import Command, Pipeline
except ImportError:  # an extra
    ConnectionPool = None  # type: ignore[assignment,misc]

DIALLING: Final = 1.0
"""Seconds for a connection to be made, TLS and log-in included. No request waits so long for it."""
_ADMIT: Final = (Path(__file__).parent / "admit.lua").read_text("utf-8")
_DURABLE: Final = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
_OLDEST: Final = 7
LOOKING: Final = 0.5
"""Seconds for a look at the store before anything is served."""
A_CLUSTER: Final = "is a Redis Cluster, of which each node keeps a part: name one Redis that keeps all"


class RedisStore:
    """One script, one round trip. Instants are the server's: the clocks of the fleet do not matter."""

    def __init__(
        self,
        url: str,
        password: Secret | None = None,
        ca: Path | None = None,
        now: int = 0,
        lease: int = LEASE,
    ) -> None:
        """
        Args:
            url: redis:// or rediss://, with a user name and a database, without a password.
            ca: authorities for rediss://, instead of the system's.
            now: Unix time in microseconds to count with, instead of the server's.
            lease: microseconds.

        Raises StoreError where the URL is none, or the extra is not installed.
        """
        more = _options(password, ca)
        try:
            # Of its pool only what it knows of URLs is used.
            self._pool = ConnectionPool.from_url(
                url,
                # Whoever asks has a deadline, and a connection that says nothing is given up with the first.
                socket_timeout=None,
                socket_connect_timeout=DIALLING,
                # A second attempt at what may have been counted would count it twice.
                retry=Retry(NoBackoff(), 0),
                **more,
            )
        except ValueError:
            raise StoreError("the store is not a URL as in redis://127.0.0.1:6379/0") from None
        self._line: Pipeline | None = None
        self._dialling: asyncio.Task[Pipeline | StoreError] | None = None
        self._script: bytes | None = None
        self.now = now
        self.lease = lease

    async def admit(self, counters: Sequence[Counter], holder: str) -> Verdict:
        keys = [counter.key for counter in counters]
        arguments: list[str | int] = [holder, self.lease, GRACE, self.now]
        for counter in counters:
            arguments += (counter.kind, counter.limit, counter.interval or counter.until)
        undo = [("ZREM", counter.key, holder) for counter in counters if counter.kind == "slots"]
        with _failures():
            said = await self._evaluate((len(keys), *keys, *arguments), undo)
            # Who reads a verdict counts with it: what is no number would fail there, as a fault of ours.
            if len(said) != 3 * len(keys) or not all(isinstance(one, int) for one in said):
                raise StoreError("the store answers something else than was asked")
            triples = zip(*(iter(said),) * 3, strict=True)
            return Verdict(tuple([Weighed(fits == 1, 0, left, wait) for fits, left, wait in triples]))

    async def _evaluate(self, arguments: Command, undo: Sequence[Command]) -> list[int]:
        """The script; sent along where the server does not have it any more, having counted nothing then."""
        if self._script is not None:
            (answer,) = await self._ask(("EVALSHA", self._script, *arguments), undo=undo)
            if not isinstance(answer, NoScriptError):
                return list(_good(answer))
        sha, answer = await self._ask(("SCRIPT", "LOAD", _ADMIT), ("EVAL", _ADMIT, *arguments), undo=undo)
        # Who may not load it may have it evaluated: what was counted then must not count as a failure.
        self._script = None if isinstance(sha, RedisError) else _bytes(sha)
        return list(_good(answer))

    async def renew(self, leases: Sequence[Lease]) -> None:
        with _failures():
            now = self.now or await self._clock()
            commands: list[Command] = []
            for key, holder in leases:
                commands.append(("ZADD", key, now + self.lease, holder))
                commands.append(("PEXPIRE", key, -(-self.lease // 1000)))
            for answer in await self._ask(*commands):
                _good(answer)

    async def release(self, leases: Sequence[Lease]) -> None:
        with _failures():
            for answer in await self._ask(*[("ZREM", key, holder) for key, holder in leases]):
                _good(answer)

    async def _clock(self) -> int:
        (answer,) = await self._ask(("TIME",))
        seconds, rest = _good(answer)
        return int(seconds) * 1_000_000 + int(rest)

    async def warnings(self) -> list[str]:
        with _failures():
            found = []
            told, durable = await self._ask(("INFO", "server"), ("CONFIG", "GET", *_DURABLE))
            if isinstance(told, NoPermissionError):
                found.append(f"the store does not tell its version; it has to be {_OLDEST} or later")
            else:
                found += _faults(_bytes(_good(told)))
            if isinstance(durable, RedisError):
                return [*found, "the store does not tell its configuration: it may lose counts"]
            said = _pairs(durable)
            for name, wanted in _DURABLE.items():
                if (is_now := said.get(name, "")) != wanted:
                    found.append(f"the store has {name} {is_now}; only with {wanted} is no count ever lost")
            return found

    async def close(self) -> None:
        if self._dialling is not None:
            self._dialling.cancel()
        if self._line is not None:
            self._line.close()

    # -- the connection -------------------------------------------------------------------------------

    async def _ask(self, *commands: Command, undo: Sequence[Command] = ()) -> list[Any]:
        """The answers. Where the server has become a replica, those of whoever is at its address now.

        A replica has done nothing of what would change anything; what it did do (to load a script, to tell
        something) may be done again.
        """
        line = await self._connected()
        answers = await line.ask(*commands, undo=undo)
        if any(isinstance(answer, (ReadOnlyError, MasterDownError)) for answer in answers):
            if self._line is line:
                self._line = None  # others may wait for its answers still
            line.retire()
            answers = await (await self._connected()).ask(*commands, undo=undo)
        return answers

    async def _connected(self) -> Pipeline:
        line = self._line
        if line is None or not line.is_open:
            if self._dialling is None or self._dialling.done():
                self._dialling = asyncio.get_running_loop().create_task(self._dial())
            # One for all who wait for it; who stops waiting does not stop it.
            dialled = await asyncio.shield(self._dialling)
            if isinstance(dialled, StoreError):
                raise dialled
            line = dialled
        return line

    async def _dial(self) -> Pipeline | StoreError:
        connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(DIALLING):
                await connection.connect()
        except BaseException as error:
            with contextlib.suppress(Exception):
                await connection.disconnect(nowait=True)
            if not isinstance(error, Exception):
                raise
            return _told(error)
        self._line = Pipeline(connection)
        return self._line


def _options(password: Secret | None, ca: Path | None) -> dict[str, Any]:
    """What goes with the URL. Raises StoreError where the extra is not installed."""
    if ConnectionPool is None:
        raise StoreError("redis:// needs an extra: pip install 'presign-proxy[redis]'")
    more: dict[str, Any] = {"ssl_ca_certs": str(ca)} if ca else {}
    return more if password is None else more | {"password": password.reveal()}


def refusal(url: str, password: Secret | None = None, ca: Path | None = None) -> str:
    """Why a store that answers cannot count, as a sentence without subject; empty where it does not answer.

    Waits for `LOOKING` seconds at most for each step. The arguments are those of `RedisStore`.
    """
    try:
        options = _options(password, ca)
        with Redis.from_url(
            url,
            socket_timeout=LOOKING,
            socket_connect_timeout=LOOKING,
            retry=RetryInTurn(NoBackoff(), 0),
            **options,
        ) as client:
            info = client.execute_command("INFO", "server")
    except (StoreError, RedisError, OSError, ValueError):
        return ""
    return A_CLUSTER if isinstance(info, dict) and info.get("redis_mode") == "cluster" else ""


def _good(answer: Any) -> Any:
    """Raises what is an error reply."""
    if isinstance(answer, Exception):
        raise answer
    return answer


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _version(info: bytes) -> int:
    line = next((line for line in info.split() if line.startswith(b"redis_version:")), b"redis_version:0")
    return int(line.partition(b":")[2].partition(b".")[0])


def _faults(info: bytes) -> list[str]:
    """What is wrong with a server that tells this of itself."""
    found, version = [], _version(info)
    if version < _OLDEST:
        found.append(f"the store is version {version}; it has to be {_OLDEST} or later")
    if b"redis_mode:cluster" in info.split():
        found.append(f"the store {A_CLUSTER}")
    return found


def _pairs(answer: Any) -> dict[str, str]:
    """A map, which the older protocol writes as a list."""
    pairs = answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2], strict=True)
    return {_bytes(name).decode(): _bytes(value).decode() for name, value in pairs}


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """Whatever goes wrong is a StoreError. Only its kind is told: texts quote what was sent."""
    try:
        yield
    except StoreError:
        raise
    except (RedisError, OSError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        # RuntimeError: uvloop's, of a connection that was just closed. The last three: an answer that is not
        # of the kind that was asked for.
        raise _told(error) from None


def _told(error: Exception) -> StoreError:
    """What an error of the server means for the operator."""
    if isinstance(error, (ReadOnlyError, MasterDownError)):
        return StoreError("the store is a replica, which counts nothing")
    if isinstance(error, (AskError, ClusterError, ClusterCrossSlotError, TryAgainError)):
        return Declined(f"the store {A_CLUSTER}")
    if isinstance(error, NoPermissionError):
        return StoreError("the store forbids its user a command that is needed")
    if isinstance(error, AuthenticationError):
        return StoreError("the store does not take the user and password")
    if isinstance(error, OutOfMemoryError):
        return StoreError("the store has no memory left")
    return StoreError(f"the store failed ({type(error).__name__})")
