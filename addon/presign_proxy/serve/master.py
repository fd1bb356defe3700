"""A mitmproxy with only what the gateway needs: no script, no UI, no dumps, no listener of its own."""

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

from ..gateway import ca_directory
from ..gateway.lifecycle import Lifecycle
from ..mitm import patches
from ..mitm.addon import PresignAddon
from ..mitm.guard import Guard
from ..mitm.hook_dispatch import prompt
from .acceptor import Acceptor
from .capacity import Room
from .plan import Plan


class SharedListener(AsyncioServerInstance[M]):
    """A server for the mode `regular`, on sockets that exist already.

    It is a subclass without a fixed mode: mitmproxy would use a subclass with one wherever that mode is
    requested.
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
    """mitmproxy's proxy server, which listens only after `serve` is called."""

    name = "proxyserver"
    _room: Room | None = None

    @contextlib.contextmanager
    def register_connection(self, connection_id: Any, handler: Any) -> Iterator[None]:
        """Register a client as mitmproxy does, and publish the new number of clients to the other workers."""
        with super().register_connection(connection_id, handler):
            self._tell()
            yield
        self._tell()

    def _tell(self) -> None:
        if self._room is not None:
            self._room.tell()

    async def serve(self, sockets: Sequence[socket.socket], room: Room) -> None:
        """Start accepting on these sockets."""
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
    """mitmproxy's TLS addon with a cache: it would read a number from its certificate with each request."""

    name = "tlsconfig"
    _authority: Any = None
    _path = ""

    def crl_path(self) -> str:
        authority = self.certstore.default_ca
        if authority is not self._authority:
            self._authority, self._path = authority, super().crl_path()
        return self._path


class LastAnswers:
    """An addon that adds `Connection: close` to answers while the gateway drains."""

    name = "presign_last_answers"

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle

    def responseheaders(self, flow: HTTPFlow) -> None:
        if self._lifecycle.draining and flow.response is not None and flow.request.is_http11:
            flow.response.headers["Connection"] = "close"


def _eagerly(loop: asyncio.AbstractEventLoop, coroutine: Any, **given: Any) -> Any:
    """Make a task that begins at once, as mitmproxy expects.

    uvloop passes `eager_start`, which Python's own factory does not accept.
    """
    given.pop("eager_start", None)
    return asyncio.eager_task_factory(loop, coroutine, **given)


class GatewayMaster(Master):
    """The mitmproxy master of a worker in production."""

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
        """Run until `shutdown`, like mitmproxy's master, but without listening at the start."""
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
        """Read everything. Problems are logged as errors, as mitmproxy does.

        Raises OptionsError, OSError.
        """
        ca_directory.prepare(Path(plan.confdir))
        trust = {"ssl_verify_upstream_trusted_ca": plan.upstream_ca} if plan.upstream_ca else {}
        self.options.update(
            confdir=plan.confdir,
            presign_config=plan.config,
            presign_unsigned=plan.unsigned,
            **trust,
        )
