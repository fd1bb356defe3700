"""Deadlines, with clients that note what is told to them, and what is cut of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy.connection import ConnectionState, Server

from presign_proxy.core.connection import Conduct
from presign_proxy.gateway.held_bodies import HeldBodies
from presign_proxy.mitm import deadlines as module
from presign_proxy.mitm.client_state import ClientStates
from presign_proxy.mitm.deadlines import Deadlines
from presign_proxy.mitm.flow.arrival import Arrival
from presign_proxy.mitm.flow.state import FlowState, FlowStates
from support.deciding import request, sent, signed

PATIENCE = 5.0
NOW = 1000.0
CONDUCT = Conduct(connect_timeout=10, response_timeout=60, body_timeout=30)


def asked(confirm: Any) -> Any:
    """What flow states ask of an admission."""
    return SimpleNamespace(confirm=confirm, answered=lambda *_: None, held_bodies=HeldBodies())


class Client:
    """A client with its handler: what is told to it, and what is cut of it."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.cut: list[Any] = []
        self.awake = 0
        self.transports: dict[Any, Any] = {}
        self.is_there = True
        self.has_gone = self.is_quiet = self.says_no_more = False
        self.has_taken = True

    async def server_event(self, event: Any) -> None:
        self.told.append(event)


class Layer:
    def __init__(self) -> None:
        self.answering = False
        self.asks: Any = "asks"
        self.given_up = 0
        self.fails = False
        self.backlog = 0

    def is_answering(self) -> bool:
        return self.answering

    def ask(self) -> Any:
        return self.asks

    def give_up(self) -> None:
        self.given_up += 1
        if self.fails:
            raise ZeroDivisionError

    def backlog_of(self, _: Any) -> int:
        return self.backlog


class Lab:
    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        confirm: Any = None
        self.clients = ClientStates()
        self.states = FlowStates(asked(confirm), self.clients)
        self.ended: list[Any] = []
        self.reloaded: list[float] = []
        self.revoked: list[float] = []
        """When revoked requests were to be ended."""
        self.ticked: list[float] = []
        self.deadlines: Any = Deadlines(
            self.states,
            self.reloaded.append,
            self._end_revoked,
            self._end_lapsed,
            self.ticked.append,
            lambda flow_state, outcome: self.ended.append((flow_state, outcome)),
        )
        self.flows: list[Any] = []
        patch.setattr(module, "handler_of", lambda client: client if client.is_there else None)
        patch.setattr(module, "cut", lambda client, connection: client.cut.append(connection))
        patch.setattr(module, "keep_awake", self._keep_awake)
        patch.setattr(module, "has_gone", lambda client: client.has_gone)
        patch.setattr(module, "is_quiet", lambda client: client.is_quiet)
        patch.setattr(module, "says_no_more", lambda client: client.says_no_more)
        patch.setattr(module, "is_taken", self._is_taken)

    async def _end_lapsed(self, _: float) -> None:
        """Nothing is read here."""

    async def _end_revoked(self, now: float) -> None:
        self.revoked.append(now)

    @staticmethod
    def _keep_awake(client: Client) -> None:
        client.awake += 1

    @staticmethod
    def _is_taken(client: Client, server: Any) -> bool:
        assert server is not None
        return client.has_taken

    def granted(self, stage: str = "waiting", **state: Any) -> FlowState:
        """The entry of a granted request of a client of its own, in this stage since `NOW`."""
        flow: Any = Layer()
        flow.client_conn = Client()
        self.flows.append(flow)
        flow_state = self.states.open(flow, Arrival((), b"", absolute=False, tunnelled=False))
        grant = sent(request(signed()))
        connection = replace(grant.connection, conduct=CONDUCT)
        self.states.grant(flow_state, grant._replace(connection=connection), ())
        server = Server(address=("api.example", 443))
        server.state = ConnectionState.OPEN
        flow_state.progress.send_on(server)
        flow_state.stream = SimpleNamespace(is_held=False)
        flow_state.progress.stage, flow_state.progress.since = stage, NOW  # type: ignore[assignment]
        for name, value in state.items():
            part: Any = flow_state if name in ("stream", "decision") else flow_state.progress
            setattr(part.upload if name in ("is_open", "held", "moved") else part, name, value)
        return flow_state

    def mute(self) -> tuple[Client, Layer]:
        """A client that says no more, and its layer."""
        client, layer = Client(), Layer()
        self.clients.half_closed.add(client)
        self.clients.attach(client, layer)
        return client, layer


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE):
            await work()

    asyncio.run(main())


async def until(is_so: Callable[[], Any]) -> None:
    while not is_so():  # noqa: ASYNC110 - nobody is told
        await asyncio.sleep(0.001)
