"""The guard: mitmproxy's hooks, each of which ends in a decision or a refusal, whatever happens inside."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from mitmproxy import command, ctx, exceptions, http
from mitmproxy.connection import Client
from mitmproxy.flow import Error
from mitmproxy.proxy.layer import NextLayer
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.tls import TlsData

from ..config import load as config
from ..config.live import LiveConfig, Reloaded
from ..config.reload import Reloader
from ..config_problems import ConfigError
from ..core import tunnel
from ..core.answers import Answer
from ..core.decision import PASS, Decision, Deny, Facts, Forward, PassThrough
from ..core.redact import redact
from ..core.registry import Registry
from ..errors import STATUS
from ..gateway import unsafe_options
from ..gateway.admission import Admission
from ..gateway.adopt import Adoption
from ..gateway.credential_fetch import Fetcher
from ..gateway.lifecycle import Lifecycle
from ..gateway.request_id import new_request_id
from ..gateway.status import Observer, hints, obstacle
from ..http.message import Request, is_sound
from ..limits.limiter import Limiter
from ..observe.audit_log import AuditLog
from ..observe.audit_record import GONE, Outcome
from ..observe.log_redaction import Redaction
from . import self_test, watchers
from .backpressure import gate
from .client_state import ClientStates
from .deadlines import Deadlines
from .dialling import Dialler
from .flow import first_bytes, http_layer
from .flow.arrival import arrival_of
from .flow.flow_display import hide, mark_end, mark_grant, mark_refusal
from .flow.incoming_request import framing_fault, request_of, second_fault
from .flow.next_layer import LayerGuard
from .flow.outgoing_request import let_through, show
from .flow.response import response_of
from .flow.state import FlowState, FlowStates
from .hook_dispatch import Begin, speed_up
from .lane import availability
from .lane.attach import with_lane
from .lane.shared import LaneShared
from .sockets import hang_up, is_listening, open_clients, tell, widen
from .tls import Front

logger = logging.getLogger(__name__)


class Guard:
    """Stands first in the master's chain, so that no other addon sees a signature, and stays there."""

    name = "presign_guard"

    def __init__(self) -> None:
        clients = ClientStates(lambda: self.live_config.max_clients)
        self.states = FlowStates(lambda *asked: self._admission.confirm(*asked), clients)
        self._watching = False
        self._fetcher = Fetcher()
        self._limiter = Limiter()
        self._dialler = Dialler(lambda: self._limiter.address, lambda: self.observer.port)
        self._audit_log = AuditLog()
        self.live_config = LiveConfig(
            lambda loaded: self.adoption.prepare(loaded),
            lambda loaded, opened: self.adoption.adopt(loaded, opened),
        )
        self._reloader = Reloader(self.live_config, self._reload)
        self._deadlines = Deadlines(
            self.states, self._reloader.tick, lambda now: self._shared.tick(now), self._end
        )
        self.lifecycle = Lifecycle(
            lambda: obstacle(self._admission, self.live_config, self._audit_log),
            lambda: hints(self.live_config, self._limiter, self._reloader),
        )
        self._admission = Admission(
            self.live_config, self._dialler, self._limiter, self._fetcher, self._audit_log, self.lifecycle
        )
        self._shared = LaneShared(
            self._admission, self._dialler, self._audit_log, self.clients, self.lifecycle
        )
        self.observer = Observer(
            self.lifecycle,
            self.live_config,
            self._limiter,
            self._audit_log,
            lambda: self.states.in_flight + len(self._shared.exchanges),
            lambda: (open_clients(), self.live_config.max_clients if is_listening() else 0),
            self._dialler.figures,
            lambda: self._reloader.trouble(time.monotonic()),
        )
        self._redaction = Redaction()
        self._front = Front()
        self.adoption = Adoption(self.observer, self._audit_log, self._limiter, self._fetcher, self._front)
        self.begin: Begin | None = None  # with hooks at once, where that can be

    @property
    def clients(self) -> ClientStates:
        return self.states.clients

    @property
    def registry(self) -> Registry | None:
        return self.live_config.registry

    # -- being installed ------------------------------------------------------------------------------

    @classmethod
    def installed(cls, master: Any) -> Guard | None:
        return next((one for one in master.addons.chain if isinstance(one, cls)), None)

    @classmethod
    def install(cls, master: Any) -> Guard:
        """The master's guard. Not registered as an addon of the script, and so not removed with it."""
        if (found := cls.installed(master)) is None:
            found = cls()
            master.addons.chain.insert(0, found)
            # mitmproxy's own NextLayer chooses first; what it chose is then guarded.
            master.addons.chain.append(LayerGuard(lambda asked: found.guard_layer(asked)))
            master.commands.collect_commands(found)
            found._redaction.install()
            speed_up(master.addons)
            # Gateway names need not resolve, and nothing is dialled before a request is known.
            master.options.update(connection_strategy="lazy")
        return found

    def arm(self) -> None:
        """The script is there: read the configuration and begin to verify."""
        strange = list(self_test.unknown())
        for problem in [*unsafe_options.mistyped(ctx.options), *strange]:
            logger.error(problem)
        self._admission.armed = not strange
        self._deadlines.start()
        self._reloader.start()
        self._dialler.start()
        self._watching = True
        self._admission.unsafe = True  # until the options have been looked at
        self.lifecycle.serve()  # as far as there is no fault
        with contextlib.suppress(NotImplementedError, ValueError, AttributeError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.reload)
        try:
            self._load()
            self._check_options()
        except exceptions.OptionsError as error:
            for line in str(error).splitlines():
                logger.error(line)

    def withdraw(self) -> None:
        """The script is gone, or about to be loaded anew: refuse all that is ours until it is there."""
        self._admission.armed = False

    async def done(self) -> None:
        await self._limiter.close()
        self._deadlines.stop()
        self._reloader.close()
        self._fetcher.close()
        self.live_config.close()
        self._dialler.close()
        for flow_state in self.states.live():
            self._end(flow_state, flow_state.progress.outcome(None, "the gateway was stopped"))
        self._shared.close()
        self.observer.close()
        self._audit_log.close()

    # -- configuration --------------------------------------------------------------------------------

    def configure(self, updated: set[str]) -> None:
        if not self._watching:
            return
        if self._admission.armed and updated & {"presign_config", "presign_unsigned"}:
            self._load()
        self._check_options()

    def _check_options(self) -> None:
        if ctx.options.presign_lane not in availability.CHOICES:
            raise exceptions.OptionsError(
                f"presign: presign_lane is one of {', '.join(availability.CHOICES)}"
            )
        self._shared.set_out(ctx.master)
        watchers.attend(ctx.master, self._audit_log.terminal, self.states)
        deny = self.registry is not None and self.registry.deny_unsigned
        problems = list(unsafe_options.unsafe(ctx.options, deny_unsigned=deny))
        self._admission.unsafe = bool(problems)
        if problems:
            raise exceptions.OptionsError("\n".join(problems))

    def _load(self) -> None:
        """Load what the options ask for. Raises OptionsError; what was loaded before stays."""
        unsigned = ctx.options.presign_unsigned
        if unsigned not in config.UNSIGNED:
            # mitmproxy checks choices only in its UI.
            choices = ", ".join(config.UNSIGNED)
            raise exceptions.OptionsError(f"presign: presign_unsigned is one of {choices}")
        try:
            if self.live_config.load(ctx.options.presign_config, unsigned):
                self._reloader.watch()
        except ConfigError as error:
            raise exceptions.OptionsError(f"presign: the configuration is not usable:\n{error}") from None

    async def _reload(self, still: float) -> Reloaded:
        outcome = await self.live_config.reload(ctx.options.presign_unsigned, still)
        if outcome.kind in ("ok", "lacks"):
            self._reloader.watch()
            try:
                self._check_options()
            except exceptions.OptionsError as error:
                logger.error("presign: presigned requests are refused until this is mended: %s", error)
        return outcome

    @command.command("presign.reload")
    def reload(self) -> None:
        """Read the configuration again, and run the programs that print secrets again."""
        self.live_config.run_anew()
        self._reloader.asked = True

    async def reloaded(self) -> tuple[bool, str]:
        """Read the configuration again; returns once it was, whether it is in force, and why not."""
        self.reload()
        await self._reloader.settled()
        return not self.live_config.stale, self.lifecycle.ready()[1]

    @command.command("presign.connections")
    def connections(self) -> Sequence[str]:
        """The ids of all connections."""
        return sorted(self.registry.connections) if self.registry else []

    # -- connections ----------------------------------------------------------------------------------

    def client_connected(self, client: Client) -> None:
        if open_clients() > self.live_config.max_clients and not self._deadlines.make_room():
            client.error = "too many client connections"
        elif client.transport_protocol == "tcp":
            self.clients.await_head(client)
            widen(client)
            gate(client, client, lambda: self.clients.holds_too_much(client))

    def tls_start_client(self, data: TlsData) -> None:
        self._front.start(data)

    async def client_disconnected(self, client: Client) -> None:
        try:
            if (layer := self.clients.layer_of(client)) is not None:
                layer.give_up()  # it was told of the end of what the client says, and of no other
                for event in layer.departures():
                    await tell(client, event)
            for flow_state in self.states.lost(client):
                self._end(flow_state, flow_state.progress.outcome(None, "the gateway failed at the protocol"))
        finally:
            self.clients.forget(client)
            self._dialler.forget(client)
            hang_up(client)

    async def server_connect(self, data: ServerConnectionHookData) -> None:
        verdict = "the gateway failed to judge this connection"
        try:
            await self._dialler.connect(data, self.registry)
            verdict = ""
        finally:
            if verdict:
                data.server.error = verdict

    def server_connected(self, data: ServerConnectionHookData) -> None:
        self._dialler.connected(data)
        gate(data.client, data.server, *self.clients.gating(data.client, data.server))

    def server_connect_error(self, data: ServerConnectionHookData) -> None:
        self._dialler.connected(data)

    def guard_layer(self, nextlayer: NextLayer) -> None:
        """Guard the HTTP layer that was chosen, or refuse another one where only HTTP is let through."""
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
        """The deadline runs again, for the head inside the tunnel."""
        self.clients.await_head(flow.client_conn)

    def http_connect(self, flow: http.HTTPFlow) -> None:
        """CONNECT: no presign travels on it, and with unsigned: deny it leads to known places only.

        Until its entry says that it may pass, the stream refuses it.
        """
        answer = self._connect_answer(flow)
        flow_state = self.states.get(flow)
        if answer is not None:
            flow.response = response_of(answer, close=True)
        elif flow_state is not None:
            flow_state.pass_through(PASS)

    def _connect_answer(self, flow: http.HTTPFlow) -> Answer | None:
        arrival = arrival_of(flow.request, tunnelled=False)
        request = request_of(flow, arrival)._replace(target=b"/")
        code = tunnel.refused(self.registry, request)
        if flow.request.data.method != b"CONNECT" or flow.request.data.path:
            code = "malformed"  # mitmproxy tunnels in any case of letters, wherever the target points
        if code is None:
            return None
        detail = f"CONNECT to {request.origin.host}:{request.origin.port}"
        decision = Deny(code, detail, "json", Facts(new_request_id(), "CONNECT", request.client))
        answer = decision.answer
        if code == "unsigned":
            answer = answer._replace(reason=tunnel.REASON)
        flow.request.data.headers = http.Headers(redact(b"/", request.fields).fields)
        self._tell(flow, self.states.get(flow), decision, Outcome(status=answer.status))
        return answer

    def requestheaders(self, flow: http.HTTPFlow) -> Coroutine[Any, Any, None] | None:
        """Decides at once; on what a grant has to wait for, in the coroutine that is returned."""
        flow_state = self.states.get(flow)
        decision: Decision = Deny("internal", "the decision failed", "json", Facts(new_request_id()))
        waiting = None
        try:
            arrival = flow_state.arrival if flow_state else arrival_of(flow.request, tunnelled=True)
            request = request_of(flow, arrival)
            decided = self._decide(flow, flow_state, request)
            if flow_state is not None and isinstance(decided, Forward) and decided.waits:
                waiting = self._wait(flow, flow_state, decided, request)
            decision = decided
        except Exception as error:
            logger.error("presign: failed to decide (%s); the request is refused", type(error).__name__)
        finally:
            if waiting is None:
                self._commit(flow, flow_state, decision)
        return waiting

    async def _wait(
        self, flow: http.HTTPFlow, flow_state: FlowState, forward: Forward, request: Request
    ) -> None:
        """Until it is over, nothing is committed, and the stream refuses the request."""
        decision: Decision | None = Deny("internal", "the decision failed", forward.style, forward.facts)
        try:
            work = self._admission.complete(forward, request, flow.client_conn, flow_state.limit_hold)
            decision = await flow_state.progress.unless_left(work)
        except Exception as error:
            logger.error("presign: failed to decide (%s); the request is refused", type(error).__name__)
        finally:
            if decision is not None:
                self._commit(flow, flow_state, decision)
            else:
                self._drop(flow, flow_state, forward)

    def _drop(self, flow: http.HTTPFlow, flow_state: FlowState, forward: Forward) -> None:
        """Its client has gone before it was decided; its stream is told so next."""
        flow_state.drop()
        hide(flow)
        self._audit_log.write(forward, flow_state.progress.outcome(None, GONE), flow.client_conn.peername)

    def _decide(self, flow: http.HTTPFlow, flow_state: FlowState | None, request: Request) -> Decision:
        decided = self.clients.take_over(flow.client_conn, request, self.registry)
        decision = decided or self._admission.decide(request)
        if flow_state is not None:
            # What was granted has passed the grammar; what was refused may not have come to it.
            flow_state.know_framing(sound=not isinstance(decision, Deny) or is_sound(request))
        if isinstance(decision, PassThrough):
            why = second_fault(request, flow_state.arrival if flow_state else None) if decision.second else ""
            return Deny("malformed", why, "json", Facts(new_request_id())) if why else decision
        if flow.error is not None:
            # mitmproxy has rejected it, and not even filled in where it is addressed.
            return Deny("malformed", "mitmproxy finds it invalid", decision.style, decision.facts)
        if isinstance(decision, Deny):
            return decision
        if flow_state is None:
            # Replayed, or on a layer that somebody else made: it would not be guarded on its way out.
            return Deny("invalid", "it is not a live request", decision.style, decision.facts)
        if why := framing_fault(flow.request, flow_state.arrival, decision):
            return Deny("malformed", why, decision.style, decision.facts)
        flow_state.keep_request(request)
        return decision

    def _commit(self, flow: http.HTTPFlow, flow_state: FlowState | None, decision: Decision) -> None:
        """Apply a decision. Until the entry has it, the stream refuses the request."""
        if isinstance(decision, PassThrough):
            let_through(flow, decision)  # where that fails, there is no decision, and it is refused
            if flow_state is not None:
                flow_state.pass_through(decision)
                self._audit_log.meter.passed += 1
        elif isinstance(decision, Forward):
            self._grant(flow, flow_state, decision)
        else:
            self._refuse(flow, flow_state, decision)

    def _grant(self, flow: http.HTTPFlow, flow_state: FlowState | None, decision: Forward) -> None:
        """Apply a grant; refuse the request where that fails half-way."""
        try:
            if flow_state is None:
                raise LookupError("a grant needs an entry")
            snapshot = show(flow, decision)
            mark_grant(flow, decision)
            # Last of all: nothing that fails may come after it.
            self.states.grant(flow_state, decision, snapshot)
        except Exception as error:
            logger.error("presign: failed to rewrite (%s); the request is refused", type(error).__name__)
            self._refuse(
                flow, flow_state, Deny("internal", "the rewrite failed", decision.style, decision.facts)
            )

    def _refuse(self, flow: http.HTTPFlow, flow_state: FlowState | None, decision: Deny) -> None:
        answer = decision.answer
        if flow_state is not None:
            flow_state.refuse(decision, answer)
        hide(flow)
        flow.response = response_of(answer, close=False)
        mark_refusal(flow, decision)
        duration = time.monotonic() - flow_state.progress.started if flow_state is not None else 0.0
        self._tell(flow, flow_state, decision, Outcome(status=answer.status, duration=duration))

    def _tell(
        self, flow: http.HTTPFlow, flow_state: FlowState | None, decision: Deny, outcome: Outcome
    ) -> None:
        if flow_state is not None:
            flow_state.log()
        self._audit_log.write(decision, outcome, flow.client_conn.peername)

    # -- the end --------------------------------------------------------------------------------------

    def response(self, flow: http.HTTPFlow) -> None:
        self._finish(flow, None)

    def error(self, flow: http.HTTPFlow) -> None:
        flow_state = self.states.get(flow)
        gone = not flow.client_conn.connected or (flow.error and flow.error.msg == Error.KILLED_MESSAGE)
        progress = flow_state.progress if flow_state is not None else None
        if progress is None or gone or progress.left:
            self._finish(flow, GONE)
        elif progress.stage == "receiving":
            self._finish(flow, progress.why or "the upstream broke off its response")
        else:
            # The stream answers it so, once mitmproxy lets it.
            status = 504 if progress.timed_out else STATUS["upstream"]
            self._finish(flow, progress.why or f"the upstream failed while {progress.stage}", status)

    def _finish(self, flow: http.HTTPFlow, error: str | None, failed: int | None = None) -> None:
        if (flow_state := self.states.get(flow)) is not None and flow_state.grant is not None:
            status = failed or (flow.response.status_code if flow.response else None)
            outcome = flow_state.progress.outcome(status, error, "upstream" if failed else None)
            mark_end(flow, self._end(flow_state, outcome), outcome, flow_state.take_bodies())

    def _end(self, flow_state: FlowState, outcome: Outcome) -> Decision | None:
        """Write down how a granted exchange has ended, once. Returns what was decided at last."""
        decision: Decision | None = flow_state.decision
        if not isinstance(decision, Forward) or flow_state.progress.stage == "done":
            return None
        if (why := flow_state.progress.withdrawn) is not None:
            decision = Deny(why.code, why.detail, decision.style, decision.facts)
        flow_state.log()
        self._audit_log.write(decision, outcome, flow_state.client.peername)
        self.states.retire(flow_state)
        return decision
