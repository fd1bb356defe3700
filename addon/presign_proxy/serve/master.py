"""mitmproxy with nothing but what the gateway needs: no script, no UI, no dumps, no listener of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mitmproxy.addons import disable_h2c, next_layer, proxyserver, tlsconfig
from mitmproxy.http import HTTPFlow
from mitmproxy.master import Master
from mitmproxy.options import Options
from mitmproxy.proxy import layers, mode_specs
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer
from mitmproxy.proxy.mode_servers import AsyncioServerInstance, M

from ..gateway import authority_directory
from ..gateway.lifecycle import Lifecycle
from ..mitm import patches
from ..mitm.addon import PresignAddon
from ..mitm.guard import Guard
from ..mitm.hook_dispatch import prompt
from .acceptor import Acceptor
from .capacity import Room
from .plan import Plan


class SharedListener(AsyncioServerInstance[M]):
    """Serves as the mode `regular` does, on sockets that are there already.

    A subclass of a mode that is left open: mitmproxy makes those of a given one wherever that is asked for.
    """

    def __init__(self, mode: Any, manager: Any, sockets: Sequence[socket.socket], room: Room) -> None:
        super().__init__(mode, manager)
        self._given = sockets
        self._room = room

    async def listen(self, host: str, port: int) -> list[Any]:  # noqa: ARG002 - mitmproxy's signature
        return [Acceptor(one, self.handle_stream, self._room) for one in self._given]

    def make_top_layer(self, context: Context) -> Layer:
        return layers.modes.HttpProxy(context)


class GatewayServer(proxyserver.Proxyserver):
    """mitmproxy's proxy server, which listens when it is told to."""

    name = "proxyserver"
    _room: Room | None = None

    @contextlib.contextmanager
    def register_connection(self, connection_id: Any, handler: Any) -> Iterator[None]:
        """As mitmproxy does, whose server calls it for each client; and the other workers see it."""
        with super().register_connection(connection_id, handler):
            self._tell()
            yield
        self._tell()

    def _tell(self) -> None:
        if self._room is not None:
            self._room.tell()

    async def serve(self, sockets: Sequence[socket.socket], room: Room) -> None:
        """Accept on these sockets from now on."""
        mode = mode_specs.ProxyMode.parse("regular")
        listener: Any = SharedListener(mode, self, sockets, room)
        self.servers._instances = {mode: listener}
        await listener.start()
        self._room = room
        room.tell()

    def acceptors(self) -> list[Acceptor]:
        return [one for listener in self.servers for one in getattr(listener, "_servers", ())]

    def stop_accepting(self) -> None:
        for one in self.acceptors():
            one.close()


class GatewayTls(tlsconfig.TlsConfig):
    """mitmproxy's addon, which asks its certificate for a number with each request, and keeps that here."""

    name = "tlsconfig"
    _authority: Any = None
    _path = ""

    def crl_path(self) -> str:
        authority = self.certstore.default_ca
        if authority is not self._authority:
            self._authority, self._path = authority, super().crl_path()
        return self._path


class LastAnswers:
    """Tells clients, while the gateway drains, that this was the last answer on their connection."""

    name = "presign_last_answers"

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle

    def responseheaders(self, flow: HTTPFlow) -> None:
        if self._lifecycle.draining and flow.response is not None and flow.request.is_http11:
            flow.response.headers["Connection"] = "close"


def _eagerly(loop: asyncio.AbstractEventLoop, coroutine: Any, **given: Any) -> Any:
    """A task that begins at once, as mitmproxy expects it. uvloop says so too, in a word that Python's own
    factory does not know.
    """
    given.pop("eager_start", None)
    return asyncio.eager_task_factory(loop, coroutine, **given)


class GatewayMaster(Master):
    """What is left of mitmproxy in production."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(Options())
        self.server = GatewayServer()
        addons: Any = self.addons
        addons.add(disable_h2c.DisableH2C(), self.server, next_layer.NextLayer(), GatewayTls())
        self.guard = Guard.install(self)
        self.guard.gateway.live_config.strict = not plan.again
        self.guard.gateway.adoption.alone = plan.workers == 1
        self.guard.gateway.admin.is_here = False  # the supervisor does, for all of its workers
        addons.add(LastAnswers(self.guard.gateway.lifecycle), PresignAddon())
        self.guard.begin = prompt(self.addons)
        patches.take()

    async def run(self) -> None:
        """Until `shutdown`. As mitmproxy does it, but it listens when it is told to."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._asyncio_exception_handler)
        loop.set_task_factory(_eagerly)
        try:
            await self.running()
            await self.should_exit.wait()
        finally:
            await self.done()

    def clients(self) -> tuple[int, int]:
        """How many client connections are open or about to be, and may be."""
        count, most = self.guard.gateway.status.clients()
        return count + sum(one.arriving for one in self.server.acceptors()), most

    def load(self, plan: Plan) -> None:
        """Read everything. What is wrong is logged as an error, as mitmproxy does it.

        Raises OptionsError, OSError.
        """
        authority_directory.prepare(Path(plan.confdir))
        trust = {"ssl_verify_upstream_trusted_ca": plan.upstream_ca} if plan.upstream_ca else {}
        self.options.update(
            confdir=plan.confdir,
            presign_config=plan.config,
            presign_unsigned=plan.unsigned,
            **trust,
        )
