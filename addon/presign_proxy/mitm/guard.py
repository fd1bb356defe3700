"""mitmproxy's hooks, each of which ends in a decision or a refusal, whatever fails inside."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Coroutine, Sequence
from typing import Any

from mitmproxy import command, ctx, exceptions, http
from mitmproxy.connection import Client
from mitmproxy.proxy.layer import NextLayer
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.tls import TlsData

from ..core.registry import Registry
from ..gateway import unreachable, unsafe_options
from ..gateway.gateway import Gateway
from ..http.networks import Network
from ..observe.log_redaction import Redaction
from . import self_test, sockets, upstream_certificates
from .backpressure import gate
from .client_state import ClientStates
from .deadlines import Deadlines
from .dialling import Dialler
from .flow import first_bytes, http_layer
from .flow.commit import Committer
from .flow.connect import decide_connect
from .flow.finish import Finisher
from .flow.next_layer import LayerGuard
from .flow.state import FlowStates
from .hook_dispatch import Begin, speed_up
from .lane.attach import with_lane
from .lane.shared import LaneShared
from .lapsed_uploads import LapsedUploads
from .revoked_requests import RevokedRequests
from .settings import NAMES, Settings
from .sockets import hang_up, open_clients, tell, widen
from .tls import Front

logger = logging.getLogger(__name__)


class Guard:
    """Stands first in the master's chain, so that no other addon sees a signature, and stays there."""

    name = "presign_guard"

    def __init__(self) -> None:
        self._front = Front()
        self.gateway = Gateway(sockets, self._front)
        admission, audit_log = self.gateway.admission, self.gateway.audit_log
        live_config = self.gateway.live_config
        self.clients = ClientStates(lambda: live_config.max_clients, self._proxies)
        self.states = FlowStates(admission, self.clients)
        self._shared = LaneShared(
            admission, self.gateway.destinations, audit_log, self.clients, self.gateway.lifecycle
        )
        self.gateway.status.adapters += [self.states, self._shared]
        self._dialler = Dialler(self.gateway.destinations)
        self._committer = Committer(admission, self.states, audit_log)
        self._finisher = Finisher(self.states, audit_log)
        self._settings = Settings(self.gateway, self.states, self._shared)
        revoked = RevokedRequests(live_config, self.states, self._shared, self._finisher.end)
        self._deadlines = Deadlines(
            self.states,
            self._settings.tick,
            revoked.tick,
            LapsedUploads(admission, self.states, self._shared).tick,
            self._shared.tick,
            self._finisher.end,
        )
        self._watching = False
        self.begin: Begin | None = None
        """Runs hooks at once, where that is possible; None: mitmproxy runs them in tasks."""

    @property
    def registry(self) -> Registry | None:
        return self.gateway.live_config.registry

    def _proxies(self) -> tuple[Network, ...]:
        """The networks of trusted proxies."""
        return self.registry.trusted_proxies if self.registry is not None else ()

    # -- installation ---------------------------------------------------------------------------------

    @classmethod
    def installed(cls, master: Any) -> Guard | None:
        """Return the master's guard, if it has one."""
        return next((one for one in master.addons.chain if isinstance(one, cls)), None)

    @classmethod
    def install(cls, master: Any) -> Guard:
        """Return the master's guard. It is not an addon of the script, and so not removed with it."""
        if (found := cls.installed(master)) is None:
            found = cls()
            master.addons.chain.insert(0, found)
            # mitmproxy's own NextLayer chooses first; what it chose is then guarded.
            master.addons.chain.append(LayerGuard(found))
            master.commands.collect_commands(found)
            Redaction().install()
            speed_up(master.addons)
            # Gateway names need not resolve, and nothing is dialled before a request is known.
            master.options.update(connection_strategy="lazy")
        return found

    def arm(self) -> None:
        """Read the configuration and begin to verify: the script is loaded."""
        strange = list(self_test.unknown())
        for problem in [*unsafe_options.mistyped(ctx.options), *strange]:
            logger.error(problem)
        self.gateway.admission.armed = not strange
        self.gateway.admission.unsafe = True  # until the options have been looked at
        self._deadlines.start()
        self.gateway.start()
        self._watching = True
        with contextlib.suppress(NotImplementedError, ValueError, AttributeError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.reload)
        try:
            self._settings.load()
            self._settings.check()
        except exceptions.OptionsError as error:
            for line in str(error).splitlines():
                logger.error(line)

    def withdraw(self) -> None:
        """Refuse all presigned requests until `arm`: the script is gone, or about to be loaded again."""
        self.gateway.admission.armed = False

    def configure(self, updated: set[str]) -> None:
        """Follow options that were changed while the program runs. Raises OptionsError."""
        if not self._watching:
            return
        if self.gateway.admission.armed and updated & NAMES:
            self._settings.load()
        self._settings.check()

    async def done(self) -> None:
        """End everything: the program stops."""
        await self.gateway.stop_counting()
        self._deadlines.stop()
        self.gateway.stop_reading()
        self._finisher.stopped()
        self._shared.close()
        self.gateway.close()

    # -- commands -------------------------------------------------------------------------------------

    @command.command("presign.reload")
    def reload(self) -> None:
        """Read the configuration again, and run the programs that print secrets again."""
        self.gateway.request_reload()

    @command.command("presign.connections")
    def connections(self) -> Sequence[str]:
        """The ids of all connections."""
        return sorted(self.registry.connections) if self.registry else []

    # -- connections ----------------------------------------------------------------------------------

    def client_connected(self, client: Client) -> None:
        most = self.gateway.live_config.max_clients
        if open_clients() > most and not self._deadlines.make_room(client):
            client.error = "too many client connections"
        elif client.transport_protocol == "tcp":
            self.clients.await_head(client)
            widen(client)
            gate(client, client, lambda: self.clients.holds_too_much(client))

    def tls_start_client(self, data: TlsData) -> None:
        self._front.start(data)

    def tls_start_server(self, data: TlsData) -> None:
        upstream_certificates.start(data)

    async def client_disconnected(self, client: Client) -> None:
        try:
            if (layer := self.clients.layer_of(client)) is not None:
                layer.give_up()  # mitmproxy has reported only that the client sends no more
                for event in layer.departures():
                    await tell(client, event)
            self._finisher.lost(client)
        finally:
            self.clients.forget(client)
            self.gateway.destinations.forget(client)
            hang_up(client)

    async def server_connect(self, data: ServerConnectionHookData) -> None:
        error = unreachable.NOT_JUDGED
        try:
            await self._dialler.connect(data, self.registry)
            error = ""
        finally:
            if error:
                data.server.error = error

    def server_connected(self, data: ServerConnectionHookData) -> None:
        self._dialler.connected(data)
        gate(data.client, data.server, *self.clients.gating(data.client, data.server))

    def server_connect_error(self, data: ServerConnectionHookData) -> None:
        self._dialler.connected(data)

    def guard_layer(self, nextlayer: NextLayer) -> None:
        """Guard the HTTP layer that was chosen; refuse any other layer where only HTTP may pass."""
        chosen = first_bytes.chosen_by(nextlayer)
        if first_bytes.is_undecided(nextlayer):
            return
        raw = first_bytes.is_raw(chosen)
        if raw and (self.registry is None or self.registry.deny_unsigned):
            nextlayer.layer = first_bytes.Refuse(nextlayer.context)
        elif raw:
            self.clients.head_came(nextlayer.context.client)
            self.clients.raw_tunnels.add(nextlayer.context.client)
        http_layer.adopt(nextlayer.context, self.states, self.begin)
        if self._shared.open and not raw:
            nextlayer.layer = with_lane(chosen, self._shared)

    # -- requests -------------------------------------------------------------------------------------

    def http_connected(self, flow: http.HTTPFlow) -> None:
        """Begin the deadline again, for the head inside the tunnel."""
        self.clients.await_head(flow.client_conn)

    def http_connect(self, flow: http.HTTPFlow) -> None:
        decide_connect(flow, self.registry, self.states, self._committer)

    def requestheaders(self, flow: http.HTTPFlow) -> Coroutine[Any, Any, None] | None:
        return self._committer.decide(flow)

    def response(self, flow: http.HTTPFlow) -> None:
        self._finisher.answered(flow)

    def websocket_end(self, flow: http.HTTPFlow) -> None:
        self._finisher.closed(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        self._finisher.failed(flow)
