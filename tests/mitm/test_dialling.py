"""Where a connection may go, decided just before it is dialled: rebinding names, ourselves, the store."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.master import Master
from mitmproxy.options import Options
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from presign_proxy.config.schema.config import HostPort
from presign_proxy.core.decision import Forward
from presign_proxy.core.registry import Registry
from presign_proxy.errors import Denied
from presign_proxy.gateway import destination, resolver
from presign_proxy.gateway.destination import DestinationJudge
from presign_proxy.gateway.resolver import TooManyLookups
from presign_proxy.http.message import Origin
from presign_proxy.http.networks import parse_network
from presign_proxy.mitm import dialling
from presign_proxy.mitm.dialling import Dialler
from presign_proxy.mitm.flow import outgoing_request
from presign_proxy.mitm.sockets import own_ports
from support.deciding import connection, registry, request, sent, signed

PUBLIC = "93.184.216.34"
NOWHERE = "198.51.100.7"
"""An address for documentation: of no machine."""


class Names:
    """`socket.getaddrinfo`, with answers of its own for some names."""

    def __init__(self) -> None:
        self.answers: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self._real = socket.getaddrinfo

    def getaddrinfo(self, host: Any, port: Any, *rest: Any, **more: Any) -> list[Any]:
        if host not in self.answers:
            return self._real(host, port, *rest, **more)
        self.asked.append(host)
        if not self.answers[host]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, (address, port)) for address in self.answers[host]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    found = Names()
    found.answers = {"api.test": [PUBLIC], "me.test": [PUBLIC, "127.0.0.1"], "none.test": []}
    monkeypatch.setattr(socket, "getaddrinfo", found.getaddrinfo)
    return found


class Place:
    """A dialler in a mitmproxy that listens, and whatever else listens beside it."""

    def __init__(self, port: int, master: Master) -> None:
        self.port = port
        self.master = master
        self.store: tuple[str, int] | None = None
        self.admin: int | None = None
        self.judge = judge_of(self)
        self.dialler = Dialler(self.judge)

    async def connect(
        self, host: str, port: int, known: Registry | None = None, mode: str = "regular"
    ) -> ServerConnectionHookData:
        client = a_client()
        client.proxy_mode = ProxyMode.parse(mode)
        data = ServerConnectionHookData(server=Server(address=(host, port)), client=client)
        await self.dialler.connect(data, known)
        return data

    async def address(self, origin: Origin, client: Any = None, **more: Any) -> str:
        outward = await self.judge.outward(client or a_client(), granted(origin, **more))
        return outward.addresses[0] if outward.addresses else outward.host


class Known:
    """What the configuration says of the listeners beside the proxy, as a place has it at the moment."""

    def __init__(self, place: Any) -> None:
        self._place = place

    registry = None

    @property
    def admin_address(self) -> HostPort | None:
        return HostPort("127.0.0.1", self._place.admin) if self._place.admin else None

    @property
    def address(self) -> tuple[str, int] | None:
        return self._place.store  # type: ignore[no-any-return]


def judge_of(place: Any) -> DestinationJudge:
    known: Any = Known(place)
    return DestinationJudge(known, known, own_ports)


def a_client() -> Client:
    return Client(peername=("192.0.2.1", 5), sockname=("127.0.0.1", 6), state=ConnectionState.OPEN)


def granted(origin: Origin, **more: Any) -> Forward:
    return sent(request(signed()))._replace(origin=origin, **more)


@contextlib.asynccontextmanager
async def placed() -> AsyncIterator[Place]:
    options = Options()
    master: Any = Master(options)
    server = Proxyserver()
    master.addons.add(server)
    options.update(mode=["regular@127.0.0.1:0"], server=True)
    server.is_running = True
    try:
        assert await server.servers.update([ProxyMode.parse("regular@127.0.0.1:0")])
        place = Place(server.listen_addrs()[0][1], master)
        yield place
        place.judge.close()
    finally:
        await server.servers.update([])
        master._legacy_log_events.uninstall()


def run(work: Callable[[Place], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with placed() as place:
            await work(place)

    asyncio.run(main())


def error_of(data: ServerConnectionHookData) -> str | None:
    return data.server.error


# -- names that a signer chose ------------------------------------------------------------------------

ORIGIN = Origin("https", "api.test", 443)


def test_a_client_is_pinned_to_the_address_that_was_judged(names: Names) -> None:
    """The name may answer differently the next time."""

    async def work(place: Place) -> None:
        client, forward = a_client(), granted(ORIGIN, resolve=())
        await place.judge.pin(client, forward)
        names.answers["api.test"] = ["127.0.0.1"]
        assert place.judge.pinned(client, "api.test", 443) == (PUBLIC,)
        assert (await place.judge.outward(client, forward)).addresses == (PUBLIC,)
        data = ServerConnectionHookData(server=Server(address=("api.test", 443)), client=client)
        await place.dialler.connect(data, None)
        assert data.server.address == (PUBLIC, 443)
        assert error_of(data) is None
        data.server.state = ConnectionState.OPEN
        place.dialler.connected(data)
        assert data.server.address == ("api.test", 443)
        place.dialler.connected(data)
        assert data.server.address == ("api.test", 443)
        assert names.asked == ["api.test"]

    run(work)


def test_an_origin_of_the_registry_is_not_pinned_whatever_others_were(names: Names) -> None:
    async def work(place: Place) -> None:
        client = a_client()
        await place.judge.pin(client, granted(ORIGIN))
        assert names.asked == []
        place.judge._keep(client, "api.test", 443, PUBLIC)
        assert await place.address(ORIGIN, client) == "api.test"
        assert await place.address(ORIGIN, client, resolve=()) == PUBLIC
        assert await place.address(ORIGIN, a_client(), resolve=()) == "api.test"

    run(work)


@pytest.mark.parametrize(
    ("answers", "allowed", "code"),
    [
        (["127.0.0.1"], (), "invalid"),
        ([PUBLIC, "10.0.0.1"], (), "invalid"),
        (["10.0.0.1"], ("10.0.0.0/8",), None),
        ([], (), "upstream"),
    ],
)
def test_a_source_leads_to_public_addresses_and_those_that_are_allowed(
    answers: list[str], allowed: tuple[str, ...], code: str | None, names: Names
) -> None:
    networks = tuple(network for text in allowed if (network := parse_network(text)) is not None)

    async def work(place: Place) -> None:
        names.answers["api.test"] = answers
        client, forward = a_client(), granted(ORIGIN, resolve=networks)
        if code is None:
            await place.judge.pin(client, forward)
            assert place.judge.pinned(client, "api.test", 443) == tuple(answers)
            return
        with pytest.raises(Denied) as denied:
            await place.judge.pin(client, forward)
        assert denied.value.code == code
        assert place.judge.pinned(client, "api.test", 443) is None

    run(work)


def test_a_source_that_is_the_gateway_itself_is_refused_even_where_its_network_is_allowed(
    names: Names,
) -> None:
    network = parse_network("127.0.0.0/8")
    assert network is not None

    async def work(place: Place) -> None:
        names.answers["api.test"] = ["127.0.0.1"]
        client = a_client()
        with pytest.raises(Denied, match="the gateway itself, or its store") as denied:
            await place.judge.pin(client, granted(Origin("http", "api.test", place.port), resolve=(network,)))
        assert denied.value.code == "invalid"
        assert place.judge.pinned(client, "api.test", place.port) is None
        await place.judge.pin(client, granted(Origin("http", "api.test", 1), resolve=(network,)))

    run(work)


def test_a_source_counts_for_the_client_that_asked(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    async def source(*arguments: Any) -> Any:
        asked.append(arguments)
        return ((PUBLIC, 443),)

    async def work(place: Place) -> None:
        monkeypatch.setattr(place.judge.resolver, "source", source)
        forward = granted(ORIGIN, resolve=())
        for client in ("192.0.2.9", "2001:db8::5", "junk"):
            forward.facts.client = client
            await place.judge.pin(a_client(), forward)

    run(work)
    assert [one[2:] for one in asked] == [
        ("conn", "192.0.2.9"),
        ("conn", "2001:db8::/64"),
        ("conn", "unknown"),
    ]
    assert {one[:2] for one in asked} == {("api.test", 443)}


# -- ourselves ----------------------------------------------------------------------------------------


def test_ports_of_ours_are_the_proxys_the_stores_the_admins_and_mitmwebs() -> None:
    async def work(place: Place) -> None:
        judge = place.judge
        assert judge._listened() == {place.port}
        place.admin, place.store = 9464, ("127.0.0.1", 6379)
        assert judge._listened() == {place.port, 9464, 6379}
        assert [judge.must_judge(port) for port in (place.port, 9464, 6379, 80)] == [
            True,
            True,
            True,
            False,
        ]
        place.master.options.add_option("web_port", int, 8081, "")
        assert judge.must_judge(8081)
        assert not judge.may_be_ours(8081), "as of the last look"
        judge.refresh()
        assert [judge.may_be_ours(port) for port in (8081, 9464, 6379, 80)] == [True, True, True, False]

    run(work)


def test_without_a_listener_nothing_is_ours() -> None:
    async def main() -> None:
        master: Any = Master(Options())
        try:
            assert own_ports() == set()
        finally:
            master._legacy_log_events.uninstall()

    asyncio.run(main())


@pytest.mark.parametrize("host", ["me.test", "127.0.0.1", "0.0.0.0"])
def test_a_grant_that_leads_back_to_us_is_refused(host: str, names: Names) -> None:
    async def work(place: Place) -> None:
        with pytest.raises(Denied, match="an address of the gateway itself, or of its store") as denied:
            await place.address(Origin("http", host, place.port))
        assert denied.value.code == "upstream"
        assert await place.address(Origin("http", host, 1)) == host
        assert await place.address(Origin("http", "api.test", place.port)) == PUBLIC
        client = a_client()
        place.judge._keep(client, "me.test", place.port, NOWHERE)
        assert await place.address(Origin("http", "me.test", place.port), client, resolve=()) == NOWHERE
        assert await place.judge.is_forbidden([PUBLIC], place.port) is False
        assert await place.judge.is_forbidden([PUBLIC], 1) is False

    run(work)


@pytest.mark.parametrize(
    ("store", "host", "is_refused"),
    [
        ("api.test", "api.test", True),
        ("other.test", "api.test", False),
        ("local.test", "me.test", True),
        ("local.test", "api.test", False),
        ("other.test", "me.test", False),
        ("local.test", "127.0.0.2", True),
    ],
)
def test_a_grant_that_leads_to_the_store_is_refused_under_whatever_name(
    store: str, host: str, is_refused: bool, names: Names
) -> None:
    names.answers |= {"other.test": [NOWHERE], "local.test": ["127.0.0.1"]}

    async def work(place: Place) -> None:
        place.store = (store, 6379)
        origin = Origin("http", host, 6379)
        if is_refused:
            with pytest.raises(Denied):
                await place.address(origin)
        else:
            assert await place.address(origin) == names.answers[host][0]
        assert await place.address(Origin("http", host, 6380)) == host

    run(work)


def test_a_local_address_at_the_port_of_a_store_elsewhere_is_nobodys(names: Names) -> None:
    """Where the store is another machine, its port here is free for anybody."""
    names.answers["other.test"] = [NOWHERE]

    async def work(place: Place) -> None:
        place.store = ("other.test", 6379)
        assert await place.address(Origin("http", "127.0.0.1", 6379)) == "127.0.0.1"
        place.store, place.admin = ("local.test", 6379), 6380
        names.answers["local.test"] = [PUBLIC]
        assert await place.address(Origin("http", "api.test", 6380)) == PUBLIC, "another port of the store's"

    run(work)


# -- connections that mitmproxy is about to make ------------------------------------------------------


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    found: list[tuple[str, int]] = []
    monkeypatch.setattr(
        dialling, "announce", lambda outward: found.append(outward[:2]) if outward.unsigned else None
    )
    yield found


def test_unsigned_names_are_told_from_those_of_the_registry(
    names: Names, marked: list[tuple[str, int]]
) -> None:
    known = registry(connection())
    upstream = next(iter(known.destinations._known))

    async def work(place: Place) -> None:
        for data in (
            await place.connect(*upstream, known),
            await place.connect("api.test", 80, known),
            await place.connect("api.test", 80, None),
            await place.connect("proxy.test", 3128, known, "upstream:http://proxy.test:3128"),
            await place.connect("proxy.test", 3129, known, "upstream:http://proxy.test:3128"),
        ):
            assert error_of(data) is None

    run(work)
    assert marked == [("api.test", 80), ("api.test", 80), ("proxy.test", 3129)]


def test_where_unsigned_requests_are_denied_nothing_is_dialled_for_them(
    names: Names, marked: list[tuple[str, int]]
) -> None:
    known = registry(connection(), deny=True)
    upstream = next(iter(known.destinations._known))

    async def work(place: Place) -> None:
        assert error_of(await place.connect("api.test", 80, known)) == (
            "this destination belongs to no connection"
        )
        assert error_of(await place.connect(*upstream, known)) is None
        through = "upstream:http://proxy.test:3128"
        assert error_of(await place.connect("proxy.test", 3128, known, through)) is None
        assert error_of(await place.connect("proxy.test", 3129, known, through)) is not None

    run(work)
    assert marked == []


def test_a_connection_back_to_us_is_refused_and_another_pinned_to_what_was_judged(names: Names) -> None:
    async def work(place: Place) -> None:
        data = await place.connect("me.test", place.port)
        assert error_of(data) == "this is an address of the gateway itself, or of its store"
        data = await place.connect("none.test", place.port)
        assert error_of(data) == "this host does not resolve, or not in time"
        names.answers["api.test"] = [PUBLIC, NOWHERE]
        data = await place.connect("api.test", place.port)
        assert error_of(data) is None
        assert data.server.address == (PUBLIC, place.port)
        data.server.state = ConnectionState.OPEN
        place.dialler.connected(data)
        assert data.server.address == ("api.test", place.port)
        data = await place.connect("me.test", 1)
        assert (error_of(data), data.server.address) == (None, ("me.test", 1))

    run(work)


@pytest.mark.parametrize("is_known", [True, False])
def test_names_that_strangers_choose_do_not_wait_with_those_of_the_configuration(
    is_known: bool, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def work(place: Place) -> None:
        known = registry(connection())
        host, port = next(iter(known.destinations._known)) if is_known else ("api.test", 443)
        place.admin = port
        for kind in ("configured", "unsigned"):

            async def look_up(host: str, port: int, kind: str = kind) -> Any:
                asked.append(kind)
                return ((PUBLIC, port),)

            monkeypatch.setattr(place.judge.resolver, kind, look_up)
        await place.connect(host, port, known)

    run(work)
    assert asked == ["configured" if is_known else "unsigned"]


def test_a_connection_without_an_address_is_left_alone() -> None:
    async def work(place: Place) -> None:
        data = ServerConnectionHookData(server=Server(address=None), client=a_client())
        await place.dialler.connect(data, registry(deny=True))
        assert (data.server.address, error_of(data)) == (None, None)
        place.dialler.connected(data)

    run(work)


def test_from_its_start_on_the_loop_connects_by_names_that_are_looked_up_here(names: Names) -> None:
    async def work(place: Place) -> None:
        before = asyncio.get_running_loop().create_connection
        place.judge.start()
        assert asyncio.get_running_loop().create_connection != before
        assert place.judge.resolver.figures()["presign_source_lookups"] == [[[], 0]]

    run(work)


def test_a_dialler_that_is_closed_looks_nothing_up_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []

    async def work(place: Place) -> None:
        monkeypatch.setattr(place.judge.resolver, "close", lambda: closed.append(True))

    run(work)
    assert closed == [True]


# -- what becomes of a look-up ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (TimeoutError(), 504, "did not resolve in time"),
        (TooManyLookups("x"), None, "too many names are being looked up"),
        (socket.gaierror(1, "x"), None, "the host does not resolve"),
        (OSError(), None, "the host does not resolve"),
    ],
)
def test_a_look_up_that_fails_is_a_refusal(error: OSError, status: int | None, detail: str) -> None:
    async def fail() -> Any:
        raise error

    with pytest.raises(Denied) as denied:
        asyncio.run(destination.resolved(fail()))
    assert denied.value.code == "upstream"
    assert denied.value.status == status
    assert detail in denied.value.detail


def test_a_look_up_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destination, "RESOLVE_TIMEOUT", 0.05)

    async def hang() -> Any:
        await asyncio.sleep(3600)

    with pytest.raises(Denied) as denied:
        asyncio.run(destination.resolved(hang()))
    assert denied.value.status == 504
    assert resolver.RESOLVE_TIMEOUT == 5.0


@pytest.mark.parametrize(
    ("address", "is_local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("0.0.0.0", True),
        ("::", True),
        (PUBLIC, False),
        (NOWHERE, False),
        ("2001:db8::1", False),
        ("junk", False),
    ],
)
def test_an_address_is_ours_if_we_could_listen_there(address: str, is_local: bool) -> None:
    assert destination.is_local(address) is is_local


def test_an_address_of_an_interface_is_ours_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only loopback: what the machine is called from outside leads back as well."""
    bound: list[Any] = []
    families: list[int] = []

    class Probe:
        def __init__(self, family: int, kind: int) -> None:
            families.append(family)

        def __enter__(self) -> Probe:
            return self

        def __exit__(self, *_: object) -> None:
            bound.append("closed")

        def bind(self, address: Any) -> None:
            bound.append(address)

    monkeypatch.setattr(destination.socket, "socket", Probe)
    assert destination.is_local(NOWHERE) is True
    assert destination.is_local("2001:db8::1") is True
    assert bound == [(NOWHERE, 0), "closed", ("2001:db8::1", 0), "closed"]
    assert families == [socket.AF_INET, socket.AF_INET6]


def test_a_client_that_asks_for_hundreds_of_sources_loses_no_address_that_is_about_to_be_dialled(
    names: Names,
) -> None:
    """All of them were forgotten at once, and a name that answers differently by then was dialled again."""

    async def work(place: Place) -> None:
        client, forward = a_client(), granted(ORIGIN, resolve=())
        for number in range(destination.MAX_PINS):
            place.judge._keep(client, f"n{number}.test", 443, PUBLIC)
        await place.judge.pin(client, forward)
        for number in range(destination.MAX_PINS - 1):
            place.judge._keep(client, f"m{number}.test", 443, PUBLIC)
        assert place.judge.pinned(client, "api.test", 443) == (PUBLIC,)
        assert place.judge.pinned(client, "n0.test", 443) is None

    run(work)


@pytest.mark.parametrize(
    ("peer", "leads"), [((PUBLIC, 443), True), (("10.0.0.1", 443), False), (None, False)]
)
def test_a_source_is_sent_only_where_an_address_leads_that_was_judged(
    peer: tuple[str, int] | None, leads: bool
) -> None:
    server = Server(address=("api.test", 443), sni="api.test", tls=True, peername=peer)
    assert outgoing_request.reaches(server, granted(ORIGIN, resolve=())) is leads
    assert outgoing_request.reaches(server, granted(ORIGIN))
