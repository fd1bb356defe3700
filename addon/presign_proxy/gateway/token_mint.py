"""Access tokens, issued by token endpoints for the secrets of the configuration."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ..config.registry_file.storage import PrivateFileError, lock, read_private, write_private
from ..config.secret_sources import SecretError, checked
from ..core.oauth2 import Minted, MintedSecret, TokenRequest, minted, written
from ..errors import Denied
from ..signing.secret import LateSecret, Secret
from .token_endpoint import Endpoint

logger = logging.getLogger(__name__)

Get = Callable[[LateSecret], Awaitable[Secret]]
_NO_FILE = "the refresh token was replaced by its endpoint; keep it in a {file: …}, or a restart loses it"


class Mint:
    """Asks token endpoints for access tokens. Each call is one request; the caller caches."""

    def __init__(self, endpoint: Endpoint, threads: Executor) -> None:
        """Args: threads: for files, which may be on a slow disk or locked by another worker."""
        self._endpoint = endpoint
        self._threads = threads
        self._replaced: dict[str, Secret] = {}

    async def token(self, late: MintedSecret, get: Get) -> Minted:
        """Return a new access token. Raises Denied("upstream").

        Args:
            get: returns a secret that a program prints.
        """
        request = late.request
        found = {one.key: await get(one) for one in request.late}

        def fill(secret: Secret) -> Secret:
            return found[secret.key] if isinstance(secret, LateSecret) else secret

        if request.refresh_file is not None:
            return await self._of_file(request, fill, Path(request.refresh_file))
        if request.refresh_token is None:
            return await self._ask(request, fill, None)
        sent = self._replaced.get(late.mark) or fill(request.refresh_token)
        answer = await self._ask(request, fill, sent)
        if answer.refresh_token is not None and answer.refresh_token.reveal() != sent.reveal():
            if late.mark not in self._replaced:
                logger.warning("presign: %s", _NO_FILE)
            self._replaced[late.mark] = answer.refresh_token
        return answer

    async def _ask(self, request: TokenRequest, fill: Any, refresh_token: Secret | None) -> Minted:
        fields, body = written(request, fill, refresh_token, int(time.time()))
        return minted(*await self._endpoint.post(request.origin, request.target, fields, body))

    async def _of_file(self, request: TokenRequest, fill: Any, path: Path) -> Minted:
        """Use the refresh token in a file, and replace it there if the endpoint does.

        All workers take turns. An endpoint that sees an old refresh token again may revoke all of its tokens.
        """
        try:
            async with self._locked(path):
                sent = await self._run(_read, path)
                answer = await self._ask(request, fill, sent)
                new = answer.refresh_token
                if new is not None and new.reveal() != sent.reveal():
                    await self._keep(path, new)
                return answer
        except (PrivateFileError, SecretError) as error:
            raise Denied("upstream", f"the file of the refresh token: {error}") from None

    async def _keep(self, path: Path, token: Secret) -> None:
        """Write the new refresh token. Never fails: the access token is good, and the old one is gone."""
        try:
            await self._run(write_private, path, token.reveal().encode() + b"\n")
        except PrivateFileError as error:
            logger.error("presign: the new refresh token is lost, its file %s %s", path.name, error)

    @asynccontextmanager
    async def _locked(self, path: Path) -> AsyncIterator[None]:
        held = lock(path)
        await self._run(held.__enter__)
        try:
            yield
        finally:
            # Closing a descriptor does not block.
            held.__exit__(None, None, None)

    async def _run(self, work: Callable[..., Any], *given: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)


def _read(path: Path) -> Secret:
    text = read_private(path).decode("utf-8", "replace").removesuffix("\n").removesuffix("\r")
    return checked(text, "it")
