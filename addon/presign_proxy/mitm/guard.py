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
from ..config.live import Keeper, Reloaded
from ..config.reload import Reloader
from ..config_problems import ConfigError
from ..core import tunnel
from ..core.answers import Answer
from ..core.decision import PASS, Decision, Deny, Facts, Forward, PassThrough
from ..core.masking import mask_for
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
from ..observe.audit_log import Journal
from ..observe.audit_record import GONE, Outcome
from ..observe.log_redaction import Redaction
from . import self_test, watchers
from .backpressure import gate
from .deadlines import Housekeeper
from .dialling import Dialler
from .flow import adapter, first_bytes, http_layer
from .flow.next_layer import LayerGuard
from .flow.state import Entry, Ledger
from .hook_dispatch import Begin, speed_up
from .lane import availability
from .lane.attach import with_lane
from .lane.shared import Express
from .sockets import hang_up, is_listening, open_clients, tell, widen
from .tls import Front

logger = logging.getLogger(__name__)


class Guard:
    """Stands first in the master's chain, so that no other addon sees a signature, and stays there."""

    name = "presign_guard"

    def __init__(self) -> None:
        self.ledger = Ledger(lambda *asked: self._admission.confirm(*asked), lambda: self.keeper.max_clients)
        self._watching = False
        self._fetcher = Fetcher()
        self._limiter = Limiter()
        self._dialler = Dialler(self.ledger, lambda: self._limiter.address, lambda: self.observer.port)
        self._journal = Journal()
        self.keeper = Keeper(
            lambda loaded: self.adoption.prepare(loaded),
            lambda loaded, opened: self.adoption.adopt(loaded, opened),
        )
        self._reloader = Reloader(self.keeper, self._reload)
        self._housekeeper = Housekeeper(
            self.ledger, self._reloader.tick, lambda now: self._express.tick(now), self._end
        )
        self.lifecycle = Lifecycle(
            lambda: obstacle(self._admission, self.keeper, self._journal),
            lambda: hints(self.keeper, self._limiter, self._reloader),
        )
        self._admission = Admission(
            self.keeper, self._dialler, self._limiter, self._fetcher, self._journal, self.lifecycle
        )
        self._express = Express(self._admission, self._dialler, self._journal, self.ledger, self.lifecycle)
        self.observer = Observer(
            self.lifecycle,
            self.keeper,
            self._limiter,
            self._journal,
            lambda: self.ledger.in_flight + len(self._express.exchanges),
            lambda: (open_clients(), self.keeper.max_clients if is_listening() else 0),
            self._dialler.figures,
            lambda: self._reloader.trouble(time.monotonic()),
        )
        self._redaction = Redaction()
        self._front = Front()
        self.adoption = Adoption(self.observer, self._journal, self._limiter, self._fetcher, self._front)
        self.begin: Begin | None = None  # with hooks at once, where that can be

    @property
    def registry(self) -> Registry | None:
        return self.keeper.registry

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
        self._housekeeper.start()
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
        self._housekeeper.stop()
        self._reloader.close()
        self._fetcher.close()
        self.keeper.close()
        self._dialler.close()
        for entry in self.ledger.live():
            self._end(entry, entry.outcome(None, "the gateway was stopped"))
        self._express.close()
        self.observer.close()
        self._journal.close()

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
        self._express.set_out(ctx.master)
        watchers.attend(ctx.master, self._journal.terminal, self.ledger)
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
            if self.keeper.load(ctx.options.presign_config, unsigned):
                self._reloader.watch()
        except ConfigError as error:
            raise exceptions.OptionsError(f"presign: the configuration is not usable:\n{error}") from None

    async def _reload(self, still: float) -> Reloaded:
        outcome = await self.keeper.reload(ctx.options.presign_unsigned, still)
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
        self.keeper.run_anew()
        self._reloader.asked = True

    async def reloaded(self) -> tuple[bool, str]:
        """Read the configuration again; returns once it was, whether it is in force, and why not."""
        self.reload()
        await self._reloader.settled()
        return not self.keeper.stale, self.lifecycle.ready()[1]

    @command.command("presign.connections")
    def connections(self) -> Sequence[str]:
        """The ids of all connections."""
        return sorted(self.registry.connections) if self.registry else []

    # -- connections ----------------------------------------------------------------------------------

    def client_connected(self, client: Client) -> None:
        if open_clients() > self.keeper.max_clients and not self._housekeeper.make_room():
            client.error = "too many client connections"
        elif client.transport_protocol == "tcp":
            self.ledger.owe_head(client)
            widen(client)
            gate(client, client, lambda: self.ledger.holds_too_much(client))

    def tls_start_client(self, data: TlsData) -> None:
        self._front.start(data)

    async def client_disconnected(self, client: Client) -> None:
        try:
            if (layer := self.ledger.layers.get(client)) is not None:
                layer.give_up()  # it was told of the end of what the client says, and of no other
                for event in layer.departures():
                    await tell(client, event)
            for entry in self.ledger.lost(client):
                self._end(entry, entry.outcome(None, "the gateway failed at the protocol"))
        finally:
            self.ledger.forget(client)
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
        gate(data.client, data.server, *self.ledger.gating(data.client, data.server))

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
            self.ledger.paid_head(nextlayer.context.client)
            self.ledger.raw.add(nextlayer.context.client)
        http_layer.adopt(nextlayer.context, self.ledger, self.begin)
        if self._express.open and not raw:
            nextlayer.layer = with_lane(chosen, self._express)

    # -- requests -------------------------------------------------------------------------------------

    def http_connected(self, flow: http.HTTPFlow) -> None:
        """The deadline runs again, for the head inside the tunnel."""
        self.ledger.owe_head(flow.client_conn)

    def http_connect(self, flow: http.HTTPFlow) -> None:
        """CONNECT: no presign travels on it, and with unsigned: deny it leads to known places only.

        Until its entry says that it may pass, the stream refuses it.
        """
        answer = self._connect_answer(flow)
        entry = self.ledger.get(flow)
        if answer is not None:
            flow.response = adapter.response_of(answer, close=True)
        elif entry is not None:
            entry.decision = PASS

    def _connect_answer(self, flow: http.HTTPFlow) -> Answer | None:
        arrival = adapter.arrival_of(flow.request, tunnelled=False)
        request = adapter.request_of(flow, arrival)._replace(target=b"/")
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
        self._tell(flow, self.ledger.get(flow), decision, Outcome(status=answer.status))
        return answer

    def requestheaders(self, flow: http.HTTPFlow) -> Coroutine[Any, Any, None] | None:
        """Decides at once; on what a grant has to wait for, in the coroutine that is returned."""
        entry = self.ledger.get(flow)
        decision: Decision = Deny("internal", "the decision failed", "json", Facts(new_request_id()))
        waiting = None
        try:
            arrival = entry.arrival if entry else adapter.arrival_of(flow.request, tunnelled=True)
            request = adapter.request_of(flow, arrival)
            decided = self._decide(flow, entry, request)
            if entry is not None and isinstance(decided, Forward) and decided.waits:
                waiting = self._wait(flow, entry, decided, request)
            decision = decided
        except Exception as error:
            logger.error("presign: failed to decide (%s); the request is refused", type(error).__name__)
        finally:
            if waiting is None:
                self._commit(flow, entry, decision)
        return waiting

    async def _wait(self, flow: http.HTTPFlow, entry: Entry, forward: Forward, request: Request) -> None:
        """Until it is over, nothing is committed, and the stream refuses the request."""
        decision: Decision | None = Deny("internal", "the decision failed", forward.style, forward.facts)
        try:
            work = self._admission.complete(forward, request, flow.client_conn, entry.seat)
            decision = await entry.unless_left(work)
        except Exception as error:
            logger.error("presign: failed to decide (%s); the request is refused", type(error).__name__)
        finally:
            if decision is not None:
                self._commit(flow, entry, decision)
            else:
                self._drop(flow, entry, forward)

    def _drop(self, flow: http.HTTPFlow, entry: Entry, forward: Forward) -> None:
        """Its client has gone before it was decided; its stream is told so next."""
        entry.seat.let_go()
        adapter.hide(flow)
        entry.request, entry.told = None, True
        self._journal.write(forward, entry.outcome(None, GONE), flow.client_conn.peername)

    def _decide(self, flow: http.HTTPFlow, entry: Entry | None, request: Request) -> Decision:
        decision = self.ledger.take_over(flow, request, self.registry) or self._admission.decide(request)
        if entry is not None:
            # What was granted has passed the grammar; what was refused may not have come to it.
            entry.ends_connection = isinstance(decision, Deny) and not is_sound(request)
        if isinstance(decision, PassThrough):
            why = adapter.second_fault(request, entry) if decision.second else ""
            return Deny("malformed", why, "json", Facts(new_request_id())) if why else decision
        if flow.error is not None:
            # mitmproxy has rejected it, and not even filled in where it is addressed.
            return Deny("malformed", "mitmproxy finds it invalid", decision.style, decision.facts)
        if isinstance(decision, Deny):
            return decision
        if entry is None:
            # Replayed, or on a layer that somebody else made: it would not be guarded on its way out.
            return Deny("invalid", "it is not a live request", decision.style, decision.facts)
        if why := adapter.framing_fault(flow.request, entry.arrival, decision):
            return Deny("malformed", why, decision.style, decision.facts)
        entry.request = request
        return decision

    def _commit(self, flow: http.HTTPFlow, entry: Entry | None, decision: Decision) -> None:
        """Apply a decision. Until the entry has it, the stream refuses the request."""
        if isinstance(decision, PassThrough):
            adapter.let_through(flow, decision)  # where that fails, there is no decision, and it is refused
            if entry is not None:
                entry.decision = decision
                self._journal.meter.passed += 1
        elif isinstance(decision, Forward):
            self._grant(flow, entry, decision)
        else:
            self._refuse(flow, entry, decision)

    def _grant(self, flow: http.HTTPFlow, entry: Entry | None, decision: Forward) -> None:
        """Apply a grant; refuse the request where that fails half-way."""
        try:
            if entry is None:
                raise LookupError("a grant needs an entry")
            entry.mask = mask_for(decision.connection.injector)
            entry.snapshot = adapter.show(flow, decision)
            adapter.mark_grant(flow, decision)
            # Last of all: nothing that fails may come after it.
            self.ledger.grant(entry, decision)
        except Exception as error:
            logger.error("presign: failed to rewrite (%s); the request is refused", type(error).__name__)
            self._refuse(flow, entry, Deny("internal", "the rewrite failed", decision.style, decision.facts))

    def _refuse(self, flow: http.HTTPFlow, entry: Entry | None, decision: Deny) -> None:
        answer = decision.answer
        if entry is not None:
            entry.answer, entry.decision, entry.request = answer, decision, None
            entry.seat.let_go()
        adapter.hide(flow)
        flow.response = adapter.response_of(answer, close=False)
        adapter.mark_refusal(flow, decision)
        duration = time.monotonic() - entry.started if entry is not None else 0.0
        self._tell(flow, entry, decision, Outcome(status=answer.status, duration=duration))

    def _tell(self, flow: http.HTTPFlow, entry: Entry | None, decision: Deny, outcome: Outcome) -> None:
        if entry is not None:
            entry.told = True
        self._journal.write(decision, outcome, flow.client_conn.peername)

    # -- the end --------------------------------------------------------------------------------------

    def response(self, flow: http.HTTPFlow) -> None:
        self._finish(flow, None)

    def error(self, flow: http.HTTPFlow) -> None:
        entry = self.ledger.get(flow)
        gone = not flow.client_conn.connected or (flow.error and flow.error.msg == Error.KILLED_MESSAGE)
        if entry is None or gone or entry.left:
            self._finish(flow, GONE)
        elif entry.stage == "receiving":
            self._finish(flow, entry.why or "the upstream broke off its response")
        else:
            # The stream answers it so, once mitmproxy lets it.
            status = 504 if entry.timed_out else STATUS["upstream"]
            self._finish(flow, entry.why or f"the upstream failed while {entry.stage}", status)

    def _finish(self, flow: http.HTTPFlow, error: str | None, failed: int | None = None) -> None:
        if (entry := self.ledger.get(flow)) is not None and entry.grant is not None:
            status = failed or (flow.response.status_code if flow.response else None)
            outcome = entry.outcome(status, error, "upstream" if failed else None)
            adapter.mark_end(flow, self._end(entry, outcome), outcome, entry.bodies)
            entry.bodies = None

    def _end(self, entry: Entry, outcome: Outcome) -> Decision | None:
        """Write down how a granted exchange has ended, once. Returns what was decided at last."""
        decision: Decision | None = entry.decision
        if not isinstance(decision, Forward) or entry.stage == "done":
            return None
        if (why := entry.withdrawn) is not None:
            decision = Deny(why.code, why.detail, decision.style, decision.facts)
        entry.told = True
        self._journal.write(decision, outcome, entry.client.peername)
        self.ledger.retire(entry)
        return decision
