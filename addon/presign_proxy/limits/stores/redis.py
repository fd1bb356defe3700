"""The store redis://, for a whole fleet: Redis 7, Valkey, or a server with their protocol and their Lua."""

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
"""Most seconds for connecting, TLS and log-in included. No request waits so long for it."""
_ADMIT: Final = (Path(__file__).parent / "admit.lua").read_text("utf-8")
_DURABLE: Final = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
_OLDEST: Final = 7
LOOKING: Final = 0.5
"""Most seconds for each step of a check of the store before the gateway serves."""
A_CLUSTER: Final = "is a Redis Cluster, of which each node keeps a part: name one Redis that keeps all"


class RedisStore:
    """The store redis://. One script in one round trip, with the time of the server.

    So the clocks of the fleet do not matter.
    """

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
            url: redis:// or rediss://, optionally with a user name and a database, without a password.
            ca: the certificate authorities for rediss://, instead of those of the system.
            now: Unix time in microseconds, instead of the time of the server.
            lease: microseconds.

        Raises StoreError if the URL is not valid, or the extra is not installed.
        """
        more = _options(password, ca)
        try:
            # The pool is used only to parse the URL and to make connections.
            self._pool = ConnectionPool.from_url(
                url,
                # Callers have a deadline of their own, and a silent connection is retired with the first that
                # reaches it.
                socket_timeout=None,
                socket_connect_timeout=DIALLING,
                # A retry of a request that may have been counted would count it twice.
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
        with failures():
            said = await self._evaluate((len(keys), *keys, *arguments), undo)
            # Callers calculate with these numbers. Other values would fail there, as an error of our own.
            if len(said) != 3 * len(keys) or not all(isinstance(one, int) for one in said):
                raise StoreError("the store sent an unexpected answer")
            triples = zip(*(iter(said),) * 3, strict=True)
            return Verdict(tuple([Weighed(fits == 1, 0, left, wait) for fits, left, wait in triples]))

    async def _evaluate(self, arguments: Command, undo: Sequence[Command]) -> list[int]:
        """Run the script. A server that no longer has it counts nothing then, and gets the script again."""
        if self._script is not None:
            (answer,) = await self._ask(("EVALSHA", self._script, *arguments), undo=undo)
            if not isinstance(answer, NoScriptError):
                return list(_good(answer))
        sha, answer = await self._ask(("SCRIPT", "LOAD", _ADMIT), ("EVAL", _ADMIT, *arguments), undo=undo)
        # A user may be allowed to EVAL but not to LOAD. The request is counted then, so this is no failure.
        self._script = None if isinstance(sha, RedisError) else _bytes(sha)
        return list(_good(answer))

    async def renew(self, leases: Sequence[Lease]) -> None:
        with failures():
            now = self.now or await self._clock()
            commands: list[Command] = []
            for key, holder in leases:
                commands.append(("ZADD", key, now + self.lease, holder))
                commands.append(("PEXPIRE", key, -(-self.lease // 1000)))
            for answer in await self._ask(*commands):
                _good(answer)

    async def release(self, leases: Sequence[Lease]) -> None:
        with failures():
            for answer in await self._ask(*[("ZREM", key, holder) for key, holder in leases]):
                _good(answer)

    async def _clock(self) -> int:
        (answer,) = await self._ask(("TIME",))
        seconds, rest = _good(answer)
        return int(seconds) * 1_000_000 + int(rest)

    async def warnings(self) -> list[str]:
        with failures():
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
        """Return the answers. If the server has become a replica, connect again and ask once more.

        That is safe, because a replica refuses every command that writes. The other commands, such as loading
        a script or reading, may run twice.
        """
        line = await self._connected()
        answers = await line.ask(*commands, undo=undo)
        if any(isinstance(answer, (ReadOnlyError, MasterDownError)) for answer in answers):
            if self._line is line:
                self._line = None  # not closed: other requests may still wait for its answers
            line.retire()
            answers = await (await self._connected()).ask(*commands, undo=undo)
        return answers

    async def _connected(self) -> Pipeline:
        line = self._line
        if line is None or not line.is_open:
            if self._dialling is None or self._dialling.done():
                self._dialling = asyncio.get_running_loop().create_task(self._dial())
            # All callers wait for the same attempt. A caller that is cancelled does not cancel the attempt.
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
            return _as_store_error(error)
        self._line = Pipeline(connection)
        return self._line


def _options(password: Secret | None, ca: Path | None) -> dict[str, Any]:
    """Return the options to use with the URL. Raises StoreError if the extra is not installed."""
    if ConnectionPool is None:
        raise StoreError("redis:// needs an extra: pip install 'presign-proxy[redis]'")
    more: dict[str, Any] = {"ssl_ca_certs": str(ca)} if ca else {}
    return more if password is None else more | {"password": password.reveal()}


def looking(url: str, password: Secret | None, ca: Path | None, patience: float) -> Redis:
    """Return a client to look, with so many seconds for each step. Raises StoreError, ValueError.

    The other arguments are those of `RedisStore`.
    """
    return Redis.from_url(
        url,
        socket_timeout=patience,
        socket_connect_timeout=patience,
        retry=RetryInTurn(NoBackoff(), 0),
        **_options(password, ca),
    )


def refusal(url: str, password: Secret | None = None, ca: Path | None = None) -> str:
    """Return why a store that answers cannot count, as a sentence without subject; empty if it can.

    Also empty if the store does not answer. Waits at most `LOOKING` seconds for each step. The arguments are
    those of `RedisStore`.
    """
    try:
        with looking(url, password, ca, LOOKING) as client:
            info = client.execute_command("INFO", "server")
    except (StoreError, RedisError, OSError, ValueError):
        return ""
    return A_CLUSTER if isinstance(info, dict) and info.get("redis_mode") == "cluster" else ""


def _good(answer: Any) -> Any:
    """Return an answer, or raise it if it is an error reply."""
    if isinstance(answer, Exception):
        raise answer
    return answer


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _version(info: bytes) -> int:
    line = next((line for line in info.split() if line.startswith(b"redis_version:")), b"redis_version:0")
    return int(line.partition(b":")[2].partition(b".")[0])


def _faults(info: bytes) -> list[str]:
    """Return what is wrong with a server, from its answer to INFO."""
    found, version = [], _version(info)
    if version < _OLDEST:
        found.append(f"the store is version {version}; it has to be {_OLDEST} or later")
    if b"redis_mode:cluster" in info.split():
        found.append(f"the store {A_CLUSTER}")
    return found


def _pairs(answer: Any) -> dict[str, str]:
    """Convert an answer to a dict. The older protocol (RESP2) sends a map as a list."""
    pairs = answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2], strict=True)
    return {_bytes(name).decode(): _bytes(value).decode() for name, value in pairs}


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """Convert every error to a StoreError that names only its kind: its text may quote what was sent."""
    try:
        yield
    except StoreError:
        raise
    except (RedisError, OSError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        # RuntimeError: uvloop raises it for a connection that was just closed. The last three: an answer of
        # an unexpected type.
        raise _as_store_error(error) from None


def _as_store_error(error: Exception) -> StoreError:
    """Return an error of the server in words for the operator."""
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
