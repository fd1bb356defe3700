"""Access tokens, issued by token endpoints for the secrets of the configuration."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..config.registry_file.storage import PrivateFileError, lock, write_private
from ..config.secret_sources import SecretError, resolve
from ..config.values import SecretSource
from ..core.credentials import Fill, filling
from ..core.oauth2 import MintedSecret, TokenRequest, written
from ..core.registry_token import RegistryTokenRequest, written_for_registry
from ..core.token_answer import Minted, issued, issued_for_registry
from ..errors import Denied
from ..signing.secret import LateSecret, Secret
from .token_endpoint import Endpoint, Wanted

logger = logging.getLogger(__name__)

Get = Callable[[LateSecret], Awaitable[Secret]]
_NO_FILE = "the refresh token was replaced by its endpoint; keep it in a {file: …}, or a restart loses it"


class _Replaced(NamedTuple):
    """A refresh token that has replaced the `given` one."""

    given: str
    by: Secret


class Mint:
    """Asks token endpoints for access tokens. Each call is one request; the caller caches."""

    def __init__(self, endpoint: Endpoint, threads: Executor) -> None:
        """Args: threads: for files, which may be on a slow disk or locked by another worker."""
        self._endpoint = endpoint
        self._threads = threads
        self._replaced: dict[str, _Replaced] = {}

    async def token(self, late: MintedSecret, get: Get, wanted: Wanted) -> Minted:
        """Return a new access token. Raises Denied("upstream"), Unwanted.

        Args:
            get: returns a secret that a program prints.
            wanted: is asked in the moment in which the secrets of the client leave.
        """
        request = late.request
        fill = filling({one.key: await get(one) for one in request.late})
        if isinstance(request, RegistryTokenRequest):
            return await self._ask_registry(request, fill, wanted)
        if request.refresh_file is not None:
            return await self._of_file(late.mark, request, fill, Path(request.refresh_file), wanted)
        if request.refresh_token is None:
            return await self._ask(request, fill, None, wanted)
        return await self._refreshed(late.mark, request, fill, fill(request.refresh_token), None, wanted)

    async def _ask_registry(self, request: RegistryTokenRequest, fill: Fill, wanted: Wanted) -> Minted:
        target, fields = written_for_registry(request, fill)
        answer = await self._endpoint.ask(request.origin, target, fields, None, wanted, direct=request.direct)
        return issued_for_registry(*answer, int(time.time()))

    async def _refreshed(
        self,
        mark: str,
        request: TokenRequest,
        fill: Fill,
        given: Secret,
        path: Path | None,
        wanted: Wanted,
    ) -> Minted:
        """Use a refresh token, or the one that has replaced it. Keep the next one."""
        known = self._replaced.get(mark)
        # A token that somebody has put there since takes precedence over one from memory.
        sent = known.by if known is not None and known.given == given.reveal() else given
        answer = await self._ask(request, fill, sent, wanted)
        new = answer.refresh_token
        if new is not None and new.reveal() != sent.reveal():
            if path is not None and await self._kept(path, new):
                self._replaced.pop(mark, None)
            else:
                if path is None and known is None:
                    logger.warning("presign: %s", _NO_FILE)
                self._replaced[mark] = _Replaced(given.reveal(), new)
        return answer

    async def _ask(
        self, request: TokenRequest, fill: Fill, refresh_token: Secret | None, wanted: Wanted
    ) -> Minted:
        fields, body = written(request, fill, refresh_token, int(time.time()), secrets.token_hex(16))
        answer = await self._endpoint.ask(
            request.origin, request.target, fields, body, wanted, direct=request.direct
        )
        return issued(request.grant, *answer, int(time.time()))

    async def _of_file(
        self, mark: str, request: TokenRequest, fill: Fill, path: Path, wanted: Wanted
    ) -> Minted:
        """Use the refresh token in a file, and replace it there if the endpoint does.

        All workers take turns. An endpoint that sees an old refresh token again may revoke all of its tokens.
        """
        async with self._locked(path):
            try:
                given = await self._run(resolve, SecretSource(file=str(path)), path.parent, {})
            except SecretError as error:
                raise Denied("upstream", str(error)) from None
            return await self._refreshed(mark, request, fill, given, path, wanted)

    async def _kept(self, path: Path, token: Secret) -> bool:
        """Write the new refresh token. Return whether it is written: the access token is good anyway."""
        try:
            await self._run(write_private, path, token.reveal().encode() + b"\n")
        except PrivateFileError as error:
            logger.error("presign: a restart loses the new refresh token: its file %s %s", path.name, error)
            return False
        return True

    @asynccontextmanager
    async def _locked(self, path: Path) -> AsyncIterator[None]:
        held = lock(path)
        try:
            await self._run(held.__enter__)
        except PrivateFileError:
            # A mounted secret: its directory cannot be written, so no worker replaces the token there.
            yield
            return
        try:
            yield
        finally:
            # Closing a descriptor does not block.
            held.__exit__(None, None, None)

    async def _run(self, work: Callable[..., Any], *given: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)
