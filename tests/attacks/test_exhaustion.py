"""What a client without any presign can use up: memory, connections, time; others are served meanwhile."""

from __future__ import annotations

import ast
import contextlib
import functools
import gc
import gzip
import importlib
import inspect
import os
import pkgutil
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import presign_proxy
from presign_proxy.config.schema.config import GatewayConfig
from presign_proxy.http import message
from presign_proxy.http.patterns import pattern
from presign_proxy.signing import grammar
from support.answers import BEHAVIOURS, Answer
from support.asking import SECRET, Grant, ask, wire
from support.deciding import code, registry, request, signed
from support.flood import as_bytes, as_request
from support.lab import REAL_SECRET, bearer_connection
from support.process import resident
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import Tls, connect, exchange, parse_response
from support.recorder import Recorder

PACKAGE = Path(presign_proxy.__file__).parent
MB = 1_000_000
MAX_CLIENTS = GatewayConfig().max_clients

# Every cache of the package: what limits it, and what one entry costs somebody without a presign.
CACHES = {
    "http.client_address.bucket": "1,024 addresses of clients with a good signature",
    "http.client_address._shown": "1,024 addresses of at most 64 characters",
    "mitm.flow.incoming_request._encoded": "1,024 hosts of at most 300 characters",
    "http.hosts._is_loopback": "as http.hosts._parse_authority",
    "limits.rules._window": "the last eight days or months",
    "units._second": "the last four seconds",
    "cli.setting_schema.keys_of": "two schemes; the command alone reads them",
    "cli.setting_schema.root_of": "two schemes; the command alone reads them",
    "cli.setting_options.setting_options": "one list; the command alone reads it",
    "http.hosts._parse_address": "1,024 addresses of at most 64 characters",
    "http.field_names._short_key": "4,096 names of headers, of at most 64 bytes: longer ones are not kept",
    "core.strip_list._short_passing": (
        "as http.field_names._short_key; and only names of requests that were granted"
    ),
    "http.hosts._parse_authority": "1,024 hosts of at most 300 characters: longer ones are not looked at",
    "signing.grammar.parse_list": "4,096 lists that were signed: no key, no entry",
    "signing.signed_policy.parse": "4,096 policies that were signed: no key, no entry",
    "config.validation._keys": "the keys that a configuration may have",
    "http.patterns.pattern": "4,096 patterns that were signed or configured: no key, no entry",
    "observe.audit_record._origin": "256 origins of requests that were granted",
    "core.credentials._slots_of": "256 names of headers that were configured",
    "core.masking.mask_for": "1,024 credentials that were configured",
    "core.aws_sigv4._signer": "64 services: those of signed requests with a good presign",
    "config.build_connections._conduct": "1,024 values that were configured",
    "config.signing_parts._ceiling": "1,024 values that were configured",
    "config.build_key_forms.key_forms": "1,024 values that were configured",
    "config.build_connections._limits": "1,024 values that were configured",
    "config.build_connections.parse_upstream": "4,096 URLs that were configured",
    "config.build_connections._second_hosts": "1,024 lists that were configured",
    "http.query._any_of": "256 sets of names of parameters that were configured",
    "config.presets.builtin.providers": "one table, of the package",
    "mitm.patches._parsed": "1,024 authorities of at most 300 characters",
}

# Every collection that outlives a request, and what empties it.
COLLECTIONS = {
    "core.registry.Registry.connections": "one per connection of the registry",
    "core.registry.Registry._of_scheme": "one per connection of the registry",
    "mitm.dialling.Dialler._named": "weak: one per upstream connection",
    "mitm.hook_dispatch.PromptAddonManager._found": "one per hook that there is",
    "mitm.hook_dispatch.DirectAddonManager._hearing": "one per hook that there is",
    "mitm.hook_dispatch.DirectAddonManager._seen": "one per addon",
    "config.strict_yaml._Builder.problems": "one document, of its owner",
    "config.registry_file.edit.Draft._before": "one per connection of the registry; in the command alone",
    "gateway.credential_fetch.Fetcher._kept": "one per program or token request, and `_scopes` of registries",
    "gateway.credential_fetch.Fetcher._scopes": "256 per account of a registry that is configured",
    "gateway.credential_fetch.Fetcher._flights": "one per configured program or token request, while it runs",
    "gateway.token_mint.Mint._replaced": "one per refresh token of the configuration that was replaced",
    "mitm.revoked_requests.RevokedRequests._ending": "weak: granted exchanges, ended at the last look",
    "mitm.room.Room._found": "clients that may have to make room, found at the last look",
    "mitm.room.Room._crowd": "clients of one address, found at the last look",
    "mitm.room.Room._places": "addresses of the clients that there are, counted at the last look",
    "gateway.held_bodies.HeldBodies._of": "presigns whose bodies are held, which have bytes there",
    "mitm.deadlines.Deadlines._lost": "weak: granted exchanges whose upstream connection has ended",
    "config.live.LiveConfig.reloads": "two results",
    "mitm.lane.read_pacing.ReadPacing._late": "what TLS took when no more was read, for one turn",
    "limits.client_shares.Shares._of": "weak: one per client connection over HTTP/2, until it is closed",
    "mitm.waker.Waker._waiting": "one per stream or upstream connection of a client that takes nothing of it",
    "mitm.backpressure.GatedReader._holders": "two at most: TLS, and the lane above it",
    "mitm.http2_turns.Turns._new": (
        "one per client connection over HTTP/2, or per upstream connection of its streams"
    ),
    "mitm.http2_turns.Turns._others": "the same",
    "mitm.lane.response.Delivery._out": "one response, in pieces of 64 KiB",
    "mitm.lane.body_pieces.BodyPieces.incoming": "one segment of a response, as the socket gave it",
    "mitm.lane.shared.LaneShared.exchanges": "one per granted exchange, until it ends",
    "mitm.lane.shared.LaneShared._tasks": "one per granted exchange that waits, for as long",
    "mitm.lane.request_head._Collector.fields": "one head, of MAX_HEAD at most",
    "mitm.lane.client_writer.ClientWriter._commands": "what one event of a client brings about",
    "mitm.lane.write_batch.WriteBatch._waiting": "one per transport written to in one turn of the loop",
    "mitm.lane.upstream_pool.Pool._idle": "MAX_IDLE_ALL connections, each for IDLE seconds",
    "mitm.lane.upstream_pool.Pool._contexts": "one per `tls` of a connection, until the next reload",
    "mitm.lane.grant_cache.GrantCache._found": "MAX heads of MAX_SIZE bytes, for a second",
    "mitm.lane.grant_cache.GrantCache._seen": "MAX_SEEN numbers, for a second",
    "mitm.flow.state.FlowStates._states": "weak: one per flow that mitmproxy itself keeps",
    "mitm.flow.state.FlowStates._granted": "weak: one per granted exchange, until it ends",
    "mitm.client_state.ClientStates._heads": "weak: one per client connection: gateway.max_clients",
    "mitm.client_state.ClientStates._layers": "weak: one per client connection",
    "mitm.client_state.ClientStates._decisions": (
        "weak: one per client connection, until the flow path takes it"
    ),
    "mitm.client_state.ClientStates.cut_off": "weak: one per client connection, until it is closed",
    "mitm.half_closed.HalfClosed._since": "weak: one per client connection, until it is closed",
    "mitm.half_closed.HalfClosed._unread": "weak: one per client connection, until its end is read",
    "mitm.client_state.ClientStates._departed": "weak: one per client connection, until it is freed",
    "mitm.flow.state.FlowStates._trailing": "weak: one per granted exchange, until its body is whole",
    "mitm.client_state.ClientStates.gone": "weak: one per client connection, until it is closed",
    "mitm.client_state.ClientStates.paused": "weak: one per client connection, until it is listened to again",
    "mitm.client_state.ClientStates._full": "weak: the same",
    "mitm.client_state.ClientStates.raw_tunnels": "weak: one per client connection, until it is closed",
    "gateway.destination.DestinationJudge._pins": (
        "weak: one per client connection, of MAX_PINS names each; granted sources only"
    ),
    "limits.deadline.Deadline._waiting": "one per request that waits for the store, for DEADLINE at most",
    "limits.limiter.Limiter.counts": "one per kind of event, of which there are five",
    "limits.slots.Slots._held": "one per granted exchange that takes a slot, until it ends",
    "limits.slots.Slots._stuck": "MAX_STUCK; one per slot that the store did not free",
    "limits.slots.Slots._releasing": "one per slot that is being given back, for DEADLINE at most",
    "limits.limiter.Limiter._tasks": "two per change of the store, of the owner",
    "observe.admin_server._Server._open": "MAX_CONNECTIONS; then the oldest goes",
    "observe.metrics.Totals._living": "one per worker that runs",
    "observe.metrics.Totals._named": "MAX_CONNECTIONS",
    "observe.metrics.Totals._gone": "the metrics there are; MAX_CONNECTIONS, and one for others",
    "observe.meter.Meter._connections": "MAX_CONNECTIONS by the codes there are; good signatures only",
    "observe.meter.Meter._named": "MAX_CONNECTIONS; good signatures only",
    "observe.meter.Meter._requests": "codes, schemes, carriers, classes of status: few",
    "gateway.status.Status._build": "two names",
    "gateway.status.Status.adapters": "two: the flow path and the lane",
    "config.secret_programs.Programs._asked": "one per configured program",
    "config.secret_programs.Programs._failed": "one per configured program",
    "config.secret_programs.Programs._kept": "one per configured program",
    "config.secret_programs.Programs._missing": "one per configured program, until it has run",
    "config.build_credentials.FileSecrets.problems": "one configuration, of its owner",
    "config.build_credentials.FileSecrets.warnings": "one configuration, of its owner",
    "config.registry_file.read.SeenRegistry._problems": "one configuration, of its owner",
    "config.registry_file.build.Builder.known": "one per connection of the registry",
    "config.registry_file.build.Builder._problems": "one configuration, of its owner",
    "config.registry_file.entries.Entries.fresh": "one per connection of the registry, until it is built",
    "config.registry_file.entries.Entries.kept": "one per connection of the registry, until it is built",
    "config.registry_file.entries.Entries.names": "one per connection of the registry, until it is built",
    "config.registry_file.entries.Entries.sections": "one configuration, of its owner",
    "config.registry_file.entries.Entries._problems": "one configuration, of its owner",
    "config.reload.Reloader._files": "one per file of the configuration",
    "config.reload.Reloader._secrets": "one per file of a secret",
    "gateway.resolver.Resolver._shares": "two per name that is being looked up, of SOURCES",
    "gateway.resolver._Lookups._flights": (
        "SOURCES, or MAX_WAITING of the other kinds, until their threads end"
    ),
    "gateway.resolver._Lookups._kept": "MAX_KEPT of each kind",
    "config.read_files.Seen.files": "one per file of the configuration",
    "config.read_files.Seen.unread": "one configuration, of its owner",
    "config.read_files.Seen.warnings": "one configuration, of its owner",
    "config.read_files.Seen.wrong": "one configuration, of its owner",
    "serve.capacity.RoomTable._taken": "one per worker that lives",
    "config.descriptors.Spares._held": "COUNT descriptors",
    "serve.acceptor.Acceptor._arriving": "one per connection that is just being accepted",
    "serve.acceptor.Acceptor._tasks": "one per connection that is just being accepted",
    "serve.log_flood.BoundedHandler._written": "OF_ALL lines, each of a kind; emptied each minute",
    "serve.master.GatewayServer._instances": "the one listener",
    "observe.admin_server._AdminHandler._rendering": "one per path that is answered with work",
    "serve.inventory.Inventory._asked": "one per worker that serves, until it has answered",
    "serve.worker_process.WorkerProcess.said": "one report, of MAX_MESSAGE at most",
    "serve.worker_process.WorkerProcess.failure": "what one worker found wrong with the configuration",
    "serve.supervisor.Supervisor._reloading": "one per worker",
    "serve.supervisor.Supervisor._workers": "one per worker",
    "serve.supervisor.Supervisor.failed": "what the first worker found wrong with the configuration",
    "serve.worker.Worker._sockets": "one per address that is listened on",
    "serve.worker.Worker._tasks": "one per order of the supervisor, until it is carried out",
    "serve.worker._Findings.errors": "one configuration, of its owner",
    "serve.worker._Findings.warnings": "one configuration, of its owner",
    "config.signing_view.Files.entries": "two files, of their owner; in the command alone",
    "config.signing_view.Files.revoked": "one file, of its owner; in the command alone",
    "observe.audit_file.AuditSink._queue": "MAX_QUEUED records; more are counted and dropped",
    "observe.audit_file.AuditSink._unwritten": "a batch of the queue",
    "limits.stores.sqlite_batches.Batcher._jobs": (
        "one per granted request that waits for the store, for DEADLINE at most"
    ),
    "limits.stores.redis_pipeline.Pipeline._undoing": (
        "one per request given up while the connection takes nothing, for LINGER"
    ),
    "limits.stores.redis_pipeline.Pipeline._waiting": (
        "one per request that waits, for DEADLINE; LINGER once it is given up"
    ),
    "limits.stores.memory.MemoryStore._counters": "MAX_COUNTERS, all of them of granted requests",
    "limits.stores.memory.MemoryStore._due": "one per counter that ends",
    "limits.stores.memory.MemoryStore._earliest": "one per concurrency of which a slot is held",
    "limits.stores.memory.MemoryStore._slots": "one per granted exchange that takes a slot, until it ends",
    "limits.stores.sqlite_file._Judging.taken": "one per slot that a batch takes, until the next batch",
    "limits.stores.sqlite_file._Judging.verdicts": "one per request of a batch, until the next batch",
    "mitm.flow.http2_client.GuardedHttp2Client.interim": "a number for each stream that is under way",
    "mitm.flow.http2_client.GuardedHttp2Client.streams": (
        "mitmproxy's: one per stream that is open, and MAX_ENDED more"
    ),
    "mitm.flow.http2_client.GuardedHttp2Client.turned_away": (
        "requests of one client that a goodbye overtook, for one event"
    ),
    "mitm.flow.http2_heads.HeadBlocks.sizes": "the heads of one turn, TURN_HEADS at most",
    "mitm.flow.http2_side.Http2Side.withheld": (
        "one per open stream of a connection, of which HTTP/2 has a hundred"
    ),
    "mitm.flow.upstream_connections.WaitingHttpLayer.connections": "those of mitmproxy, in another order",
}


def cached() -> dict[str, Any]:
    """All memoised functions of the package."""
    found = {}
    for info in pkgutil.walk_packages([str(PACKAGE)], "presign_proxy."):
        if info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            if isinstance(value, functools._lru_cache_wrapper) and value.__module__.startswith(
                "presign_proxy"
            ):
                home = info.name.removeprefix("presign_proxy.")
                if value.__wrapped__.__module__ == info.name:
                    found[f"{home}.{name}"] = value
    return found


def kept() -> set[str]:
    """`module.Class.attribute` of everything that is made an empty collection in an `__init__`."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for one in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(one, ast.ClassDef):
                found |= {f"{module}.{one.name}.{name}" for name in _collections(one)}
    return found


def _collections(owner: ast.ClassDef) -> Iterator[str]:
    makers = {"dict", "list", "set", "deque", "defaultdict", "OrderedDict", "Counter", "WeakKeyDictionary"}
    makers |= {"WeakSet", "WeakValueDictionary"}
    for one in ast.walk(owner):
        targets = [one.target] if isinstance(one, ast.AnnAssign) else getattr(one, "targets", [])
        value = getattr(one, "value", None)
        made = isinstance(value, ast.Call) and ast.unparse(value.func).removeprefix("collections.") in makers
        if isinstance(one, ast.Assign | ast.AnnAssign) and (
            made or isinstance(value, ast.Dict | ast.List | ast.Set)
        ):
            yield from (target.attr for target in targets if isinstance(target, ast.Attribute))


def test_every_cache_is_bounded_and_accounted_for() -> None:
    found = cached()
    assert set(found) | {"config.build_connections._conduct", "config.signing_parts._ceiling"} == set(CACHES)
    for name, cache in found.items():
        no_arguments = not inspect.signature(cache.__wrapped__).parameters
        assert no_arguments or cache.cache_parameters()["maxsize"] <= 4096, name


def test_every_collection_that_outlives_a_request_is_accounted_for() -> None:
    assert kept() == set(COLLECTIONS)


@pytest.mark.slow
def test_what_nobody_signed_is_remembered_nowhere_but_in_two_small_caches() -> None:
    """Names of headers and hosts; lists and patterns only once their signature was good."""
    caches = cached()
    for cache in caches.values():
        cache.cache_clear()
    for number in range(30_000):
        assert code(as_request(number)) not in ("forward", "pass", "internal")
    sizes = {name: cache.cache_info().currsize for name, cache in caches.items()}
    filled = {name for name, size in sizes.items() if size}
    assert filled == {
        "http.field_names._short_key",
        "http.hosts._parse_authority",
        "core.credentials._slots_of",
    }
    assert sizes["core.credentials._slots_of"] == 1  # of the one connection that there is
    assert sizes["http.field_names._short_key"] <= 4096
    assert sizes["http.hosts._parse_authority"] <= 1024
    assert code(request(signed())) == "forward"
    assert grammar.parse_list.cache_info().currsize == 2
    assert pattern.cache_info().currsize == 1


def test_a_long_name_of_a_header_is_not_remembered() -> None:
    cache = cached()["http.field_names._short_key"]
    cache.cache_clear()
    for number in range(50):
        code(request("/api/proxy/conn/x?X-Presign-Expires=1", (b"x" * 60_000 + b"%d" % number, b"1")))
    assert cache.cache_info().currsize < 50


@pytest.mark.slow
def test_requests_of_which_no_two_are_alike_take_no_memory_in_the_core() -> None:
    known = registry()
    for number in range(10_000):
        code(as_request(number), known)
    gc.collect()
    before = resident(os.getpid())
    for number in range(10_000, 50_000):
        code(as_request(number), known)
    gc.collect()
    assert resident(os.getpid()) - before < 6 * MB


# -- a real gateway -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway(module_gateway: Any, upstream: Recorder) -> Iterator[Mitm]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))  # inherited
    yield module_gateway({"connections": {"conn": bearer_connection(upstream.url, SECRET)}})
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def good(gateway: Mitm) -> int:
    return ask(gateway.port, Grant("conn").target("v1/models"), {"Connection": "close"}).status


@pytest.mark.slow
def test_requests_of_which_no_two_are_alike_take_no_memory_in_a_gateway(gateway: Mitm) -> None:
    """bench/flood.py does it with a million and with fifty thousand."""

    def flood(first: int, last: int) -> None:
        with contextlib.ExitStack() as open_:
            sock = open_.enter_context(connect(gateway.port))
            for number in range(first, last):
                received = exchange(sock, as_bytes(number))
                # Of a host that is none of ours, the presign belongs to no connection.
                assert received.startswith((b"HTTP/1.1 400", b"HTTP/1.1 403", b"HTTP/1.1 404")), received
                if b"connection: close" in received.lower():  # what is malformed ends its connection
                    open_.close()
                    sock = open_.enter_context(connect(gateway.port))

    flood(0, 2_500)
    before = gateway.rss()
    flood(2_500, 7_500)
    assert gateway.rss() - before < 4 * MB
    assert good(gateway) == 200


@pytest.mark.slow
def test_the_thousand_and_first_client_is_turned_away_and_those_inside_are_served(gateway: Mitm) -> None:
    with contextlib.ExitStack() as crowd:
        inside = crowd.enter_context(connect(gateway.port))
        request_ = wire(Grant("conn").target("v1/models"))
        assert parse_response(exchange(inside, request_)).status == 200
        before = gateway.rss()
        others = [crowd.enter_context(connect(gateway.port)) for _ in range(MAX_CLIENTS + 100)]
        # Or the first of them, for the last: those have sent nothing for a second by then.
        assert eventually(lambda: sum(map(_is_closed, others)) >= 90, 8)
        assert parse_response(exchange(inside, request_)).status == 200
        assert gateway.rss() - before < 150 * MB
    assert eventually(lambda: _serves(gateway), 10)


@pytest.mark.slow
def test_one_client_that_keeps_a_thousand_idle_connections_shuts_nobody_out(gateway: Mitm) -> None:
    """Each has had its refusal, owes nothing, and is as good as any for the ten minutes of mitmproxy."""
    refused = wire(Grant("conn", secret="sk_somebody_elses_secret_0123456789").target("v1/models"))
    granted = wire(Grant("conn").target("v1/models"))
    with contextlib.ExitStack() as crowd:
        inside = crowd.enter_context(connect(gateway.port))
        assert parse_response(exchange(inside, granted)).status == 200
        for _ in range(MAX_CLIENTS + 20):
            one = crowd.enter_context(connect(gateway.port))
            assert parse_response(exchange(one, refused)).status == 403
        for _ in range(5):
            newcomer = crowd.enter_context(connect(gateway.port))
            assert parse_response(exchange(newcomer, granted)).status == 200
        # Who was granted something is not the one who has to go.
        assert parse_response(exchange(inside, granted)).status == 200


def _is_closed(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _serves(gateway: Mitm) -> bool:
    try:
        return good(gateway) == 200
    except (OSError, ValueError):
        return False


@pytest.mark.slow
def test_a_client_whose_head_comes_byte_by_byte_is_cut_and_others_are_served(gateway: Mitm) -> None:
    """A head that grows for ever is no head in time: bytes do not buy time."""
    head = wire(Grant("conn").target("v1/models"))
    with connect(gateway.port) as slow:
        started = time.monotonic()
        with contextlib.suppress(OSError):
            for at in range(200):
                slow.sendall(head[at : at + 1])
                time.sleep(0.1)
                if at % 20 == 0:
                    assert good(gateway) == 200
        assert time.monotonic() - started < 14


@pytest.mark.slow
def test_a_tls_client_that_never_says_hello_is_cut(gateway: Mitm) -> None:
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200)
    with connect(gateway.port) as slow:
        slow.sendall(hello)
        slow.settimeout(14)
        assert slow.recv(100) == b""


@pytest.mark.parametrize("size", [message.MAX_HEAD + 10, 4 * MB])
@pytest.mark.parametrize("part", ["target", "value", "name", "many values"])
def test_a_head_over_its_size_is_answered_and_not_kept(part: str, size: int, gateway: Mitm) -> None:
    grant = Grant("conn")
    long = b"x" * size
    parts = {
        "target": b"GET "
        + grant.target("v1/models").encode()
        + b"&a="
        + long
        + b" HTTP/1.1\r\nHost: presign.local",
        "value": wire(grant.target("v1/models"))[:-4] + b"\r\nX-Long: " + long,
        "name": wire(grant.target("v1/models"))[:-4] + b"\r\n" + long + b": 1",
        "many values": wire(grant.target("v1/models"))[:-4] + b"\r\nX-A: 1234567890" * (size // 17),
    }
    before = gateway.rss()
    with connect(gateway.port) as sock, contextlib.suppress(OSError):
        received = exchange(sock, parts[part] + b"\r\n\r\n")
        if received:  # else the rest, which nobody read, has destroyed it
            assert parse_response(received).status == 431
    assert gateway.rss() - before < 4 * MB
    assert good(gateway) == 200


@pytest.mark.slow
def test_hundreds_of_names_in_tls_take_no_memory(gateway: Mitm) -> None:
    """mitmproxy makes a certificate for each name it is asked for, and keeps a hundred."""

    def hello(number: int) -> None:
        with contextlib.suppress(OSError), connect(gateway.port, Tls(f"h{number}.presign.local"), 5):
            pass

    for number in range(120):
        hello(number)
    before = gateway.rss()
    for number in range(120, 360):
        hello(number)
    assert gateway.rss() - before < 6 * MB


def test_a_reply_that_expands_a_thousandfold_takes_no_memory(
    gateway: Mitm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upstream's own bomb: 400 MB in 400 KB, decoded because it could hold the credential."""
    total = 400 * MB
    packed = gzip.compress(bytes(total), 9)
    bomb = Answer(headers=(("Content-Encoding", "gzip"),), body=packed)
    monkeypatch.setitem(BEHAVIOURS, "bomb", lambda _: bomb)
    before, most, received = gateway.rss(), 0, 0
    with connect(gateway.port, timeout=20) as sock:
        sock.sendall(wire(Grant("conn").target("bomb"), {"Connection": "close"}))
        while data := sock.recv(1 << 20):
            received += len(data)
            most = max(most, gateway.rss())
    assert received > total
    assert most - before < 120 * MB


def test_an_upstream_that_drips_holds_up_nobody_else(gateway: Mitm, upstream: Recorder) -> None:
    with contextlib.ExitStack() as clients:
        for _ in range(50):
            sock = clients.enter_context(connect(gateway.port))
            sock.sendall(wire(Grant("conn").target("v1/slow")))
        started = time.monotonic()
        assert good(gateway) == 200
        assert time.monotonic() - started < 2.5


def test_refused_requests_in_one_go_do_not_starve_others(gateway: Mitm) -> None:
    """Two connections that send as fast as they are answered, and one client who means well."""
    with contextlib.ExitStack() as flooders:
        socks = [flooders.enter_context(connect(gateway.port)) for _ in range(2)]
        waits = []
        for turn in range(10):
            for sock in socks:
                with contextlib.suppress(BlockingIOError):
                    sock.setblocking(False)
                    sock.send(b"".join(as_bytes(8 * number + turn) for number in range(60)))
                    sock.recv(1 << 20)
            started = time.monotonic()
            assert good(gateway) == 200
            waits.append(time.monotonic() - started)
        assert sorted(waits)[len(waits) // 2] < 2
    assert REAL_SECRET not in gateway.log()


def test_streams_that_are_reset_at_once_take_no_memory(gateway: Mitm) -> None:
    """CVE-2023-44487: an HTTP/2 client opens streams and resets them, without waiting for answers."""
    import h2.config
    import h2.connection

    def burst(count: int) -> None:
        with contextlib.suppress(OSError), connect(gateway.port, Tls("presign.local", alpn=("h2",))) as sock:
            client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
            client.initiate_connection()
            head = [(":method", "GET"), (":scheme", "https"), (":authority", "presign.local")]
            for number in range(count):
                stream = client.get_next_available_stream_id()
                client.send_headers(stream, [*head, (":path", f"/api/proxy/conn/{number}")], end_stream=True)
                client.reset_stream(stream)
                sock.sendall(client.data_to_send())
            sock.settimeout(1)
            with contextlib.suppress(TimeoutError):
                while sock.recv(1 << 16):
                    pass

    burst(500)
    before = gateway.rss()
    burst(2000)
    assert gateway.rss() - before < 12 * MB
    assert good(gateway) == 200
    assert "has crashed" not in gateway.log()


def test_a_head_of_endless_continuations_is_cut(gateway: Mitm) -> None:
    """CVE-2024-27919 and its kin: HEADERS without END_HEADERS, then CONTINUATION for ever."""
    with connect(gateway.port, Tls("presign.local", alpn=("h2",))) as sock:
        sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        before = gateway.rss()
        sent = 0
        with contextlib.suppress(OSError):
            sock.settimeout(5)
            sock.sendall(b"\x00\x00\x00\x01\x00\x00\x00\x00\x01")
            for _ in range(2000):
                sock.sendall(b"\x00\x40\x00\x09\x00\x00\x00\x00\x01" + b"\x00" * 16384)
                sent += 16384
        assert sent < 16 * MB
        assert gateway.rss() - before < 8 * MB
    assert good(gateway) == 200


def test_a_frame_that_claims_sixteen_megabytes_is_not_waited_for(gateway: Mitm) -> None:
    """h2 looks at a frame's length only once all of it is there: a thousand such clients would be 16 GB."""
    with connect(gateway.port, Tls("presign.local", alpn=("h2",))) as sock:
        sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        before, sent = gateway.rss(), 0
        with contextlib.suppress(OSError):
            sock.settimeout(5)
            sock.sendall(b"\xff\xff\xf0\x00\x00\x00\x00\x00\x01")
            while sent < 14 * MB:
                sock.sendall(bytes(65536))
                sent += 65536
        assert sent < 8 * MB
        assert gateway.rss() - before < 9 * MB  # what was on its way when it closed
    assert good(gateway) == 200
