"""A container registry with a token service behind the gateway, on both paths: pulls and pushes as by docker,
and what must not come of them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from support.asking import SECRET, Grant, ask, code
from support.container_registry import MANIFEST, PASSWORD, SERVICE, USER, Registry, Reply, digest, running
from support.gateways import MakeGateway
from support.lanes import WAYS
from support.leaks import Traces
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import Response

GATEWAY = "presign.local"
CONNECTIONS = 60
BLOB = b"a layer " * 1000


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with running() as found:
        yield found


@pytest.fixture(scope="module", params=("lane", "flows"))
def gateway(request: Any, module_gateway: MakeGateway, registry: Registry) -> Mitm:
    """Each connection is known to the token service by a name of its own, and so has tokens of its own."""
    found = {
        f"conn_{number}": {
            "preset": "oci",
            "upstream": registry.registry.url,
            "auth": registry.auth | {"service": f"{SERVICE}-{number}"},
            "signing_keys": [{"secret": SECRET}],
            "timeouts": {"connect": "3s"},
        }
        for number in range(CONNECTIONS)
    }
    config = {
        "gateway": {"hosts": [GATEWAY], "unsigned": "deny"},
        "connections": found,
        "audit": {"file": "audit.jsonl"},
    }
    options = () if request.param == "lane" else ("-w", "flows.mitm", "--set", "flow_detail=4")
    gateway = module_gateway(config, *WAYS[request.param], *options)
    gateway.fresh = iter(range(CONNECTIONS))  # type: ignore[attr-defined]
    return gateway


class Client:
    """Asks as docker and skopeo do: the gateway is the registry, the key token the password."""

    def __init__(self, gateway: Mitm, registry: Registry, connection: str) -> None:
        self.gateway, self.registry, self.connection = gateway, registry, connection
        self.key = Grant(connection)

    def signed(self, **signed: Any) -> Client:
        """The same with another key."""
        other = Client(self.gateway, self.registry, self.connection)
        other.key = Grant(self.connection, **signed)
        return other

    def __call__(self, target: str, method: str = "GET", body: bytes = b"", **fields: str) -> Response:
        pair = base64.b64encode(f"anybody:{self.key.token}".encode()).decode()
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        return ask(self.gateway.port, target, {"Authorization": f"Basic {pair}"} | headers, method, body=body)

    def upload(self, name: str, blob: bytes, begin: str = "") -> Response:
        """POST, PATCH, PUT, each where the answer before it leads."""
        begun = self(f"/v2/{name}/blobs/uploads/{begin}", "POST", Content_Length="0")
        assert begun.status == 202, begun
        sent = self(self.below(begun), "PATCH", blob)
        assert sent.status == 202, sent
        where = self.below(sent)
        return self(f"{where}&digest={digest(blob)}", "PUT", Content_Length="0")

    def below(self, answer: Response) -> str:
        """Where an answer leads; it must be the gateway."""
        where = urlsplit(answer.header("location") or "")
        assert where.netloc in ("", GATEWAY), where
        return f"{where.path}?{where.query}"


@pytest.fixture
def client(gateway: Mitm, registry: Registry) -> Client:
    registry.reset()
    return Client(gateway, registry, f"conn_{next(gateway.fresh)}")  # type: ignore[attr-defined]


def bearers(registry: Registry) -> list[str]:
    return [one.headers.get("authorization", "") for one in registry.registry.asked]


def test_an_image_is_pulled_as_docker_does_it(client: Client, registry: Registry, gateway: Mitm) -> None:
    layer = registry.image("team/app", "1.0", BLOB)
    asked = ask(gateway.port, "/v2/")
    assert code(asked) == (401, "unsigned")
    assert asked.header("www-authenticate") == 'Basic realm="presign"'
    assert client("/v2/").status == 200
    pull = client.signed(methods="GET,HEAD", paths="v2/team/app/*")
    head = pull("/v2/team/app/manifests/1.0", "HEAD", Accept=MANIFEST)
    reference = head.header("docker-content-digest")
    manifest = json.loads(pull(f"/v2/team/app/manifests/{reference}", Accept=MANIFEST).body)
    assert manifest["layers"][0]["digest"] == layer
    led = pull(f"/v2/team/app/blobs/{layer}")
    assert led.status == 307
    away = urlsplit(led.header("location") or "")
    stored = ask(int(away.port or 0), f"{away.path}?{away.query}")  # the client follows, without its key
    assert stored.body == BLOB
    assert registry.scopes == ["", "repository:team/app:pull"]
    assert all(one.startswith("Bearer token-") for one in bearers(registry))


def test_an_image_is_pushed_as_docker_does_it(client: Client, registry: Registry) -> None:
    blob = BLOB + str(client.gateway.port).encode()  # the other gateway has pushed to the same registry
    assert client(f"/v2/team/new/blobs/{digest(blob)}", "HEAD").status == 404
    assert client.upload("team/new", blob).status == 201
    manifest = b'{"schemaVersion": 2}'
    put = client("/v2/team/new/manifests/2.0", "PUT", manifest, Content_Type=MANIFEST)
    assert put.status == 201
    assert client.below(put) == f"/v2/team/new/manifests/{digest(manifest)}?"
    assert registry.blobs["team/new", digest(blob)] == blob
    assert registry.manifests["team/new", "2.0"] == (MANIFEST, manifest)
    assert registry.scopes == ["repository:team/new:pull,push"]
    assert client("/v2/team/new/manifests/2.0", "DELETE").status == 202
    assert registry.scopes[1:] == ["repository:team/new:delete"]


def test_a_key_that_may_only_read_gets_no_token_that_may_write(client: Client, registry: Registry) -> None:
    registry.image("a", "1")
    reads = client.signed(methods="GET,HEAD")
    assert reads("/v2/a/manifests/1").status == 200
    assert code(reads("/v2/a/blobs/uploads/", "POST")) == (403, "method_not_allowed")
    assert registry.scopes == ["repository:a:pull"]


def test_tokens_of_two_repositories_never_mix(client: Client, registry: Registry) -> None:
    names = ("a", "b", "a/b", "b/a")
    for name in names:
        registry.image(name, "1")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda name: client(f"/v2/{name}/manifests/1").status, names * 10))
    assert found == [200] * 40
    assert sorted(registry.scopes) == sorted(f"repository:{name}:pull,push" for name in names)
    for one in registry.registry.asked:
        granted, _ = registry.tokens[one.headers["authorization"].removeprefix("Bearer ")]
        name = one.path.removeprefix("/v2/").removesuffix("/manifests/1")
        assert granted == {f"repository:{name}:pull", f"repository:{name}:push"}


def test_the_catalog_and_the_tags_are_read(client: Client, registry: Registry) -> None:
    registry.image("a", "1")
    assert client("/v2/_catalog").status == 200
    assert "1" in json.loads(client("/v2/a/tags/list").body)["tags"]
    assert registry.scopes == ["registry:catalog:*", "repository:a:pull,push"]


@pytest.mark.parametrize(
    ("signed", "target", "expected"),
    [
        ({"expires": 1}, "/v2/a/manifests/1", (403, "expired")),
        ({"paths": "v2/a/*"}, "/v2/b/manifests/1", (403, "path_not_allowed")),
        ({"paths": "v2/a/*"}, "/v2/a/../b/manifests/1", (403, "path_not_allowed")),
        ({"paths": "v2/a/*"}, "/v2/", (403, "path_not_allowed")),
        ({"methods": "HEAD"}, "/v2/a/manifests/1", (403, "method_not_allowed")),
        ({"secret": "another secret of nobody"}, "/v2/a/manifests/1", (403, "invalid")),
    ],
)
def test_who_is_refused_causes_no_request_for_a_token(
    client: Client, registry: Registry, signed: dict[str, Any], target: str, expected: tuple[int, str]
) -> None:
    registry.image("a", "1")
    registry.image("b", "1")
    assert code(client.signed(**signed)(target)) == expected
    assert not registry.service.asked
    assert not registry.registry.asked


def test_a_blob_of_another_repository_is_not_mounted_but_uploaded(client: Client, registry: Registry) -> None:
    """Nobody has signed the path of the other repository. The registry then takes the blob itself."""
    layer = registry.image("secret", "1", BLOB)
    key = client.signed(paths="v2/mine/*")
    assert key.upload("mine", BLOB, f"?mount={layer}&from=secret").status == 201
    assert registry.scopes == ["repository:mine:pull,push"]


def test_a_registry_that_names_another_token_service_gets_no_password(
    client: Client, registry: Registry
) -> None:
    registry.image("a", "1")
    registry.rights["a"] = set()
    try:
        answers = [client("/v2/a/manifests/1") for _ in range(4)]
    finally:
        del registry.rights["a"]
    assert [one.status for one in answers] == [401] * 4
    assert answers[0].header("www-authenticate") is None
    assert not registry.store.asked  # the realm that the registry has named
    assert registry.scopes == ["repository:a:pull,push"] * 2  # a token may end early: once in 30 s
    assert PASSWORD not in str(registry.registry.asked)


def test_password_and_tokens_stand_in_no_file_and_a_token_is_masked(
    client: Client, registry: Registry, gateway: Mitm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def says(asked: Any, _: bytes) -> Reply:
        return Reply(200, {"X-Said": asked.headers["authorization"]}, str(asked.headers).encode())

    monkeypatch.setattr(registry.registry, "answer", says)
    answer = client("/v2/a/manifests/1")
    assert b"authorization" in answer.body
    traces = Traces([*registry.tokens, PASSWORD, f"{USER}:{PASSWORD}"])
    assert not traces.found_in(answer.body + str(answer.headers).encode())
    log = gateway.directory / "audit.jsonl"
    assert eventually(lambda: f'"{client.connection}"' in log.read_text())
    for file in sorted(Path(gateway.directory).rglob("*")):
        if file.is_file() and file.name != "config.yaml" and "confdir" not in str(file):
            assert not traces.found_in(file.read_bytes()), file


def answering(registry: Registry, reply: Callable[[], Reply]) -> None:
    registry.service.answer = lambda *_: reply()


def text(body: str, status: int = 200, media: str = "application/json") -> Reply:
    return Reply(status, {"Content-Type": media}, body.encode())


BROKEN: dict[str, Reply] = {
    "a wrong password": text('{"errors": [{"code": "UNAUTHORIZED"}]}', 401),
    "a server error": text("oops", 500),
    "too many requests": text("{}", 429),
    "a redirect": Reply(307, {"Location": "http://127.0.0.1:1/token"}),
    "no JSON": text("token=abc"),
    "another media type": text('{"token": "abc"}', media="text/html"),
    "no token": text('{"expires_in": 60}'),
    "an empty token": text('{"token": ""}'),
    "a number": text('{"token": 7}'),
    "two tokens": text('{"token": "abc", "access_token": "def"}'),
    "a token twice": text('{"token": "abc", "token": "def"}'),
    "a token with a line break": text('{"token": "abc\\r\\nX-Injected: 1"}'),
    "a huge token": text(json.dumps({"token": "a" * 40_000})),
    "a huge body": text(json.dumps({"token": "abc", "x": "a" * 200_000})),
    "deep JSON": text("[" * 60_000),
    "expired at once": text('{"token": "abc", "expires_in": 0}'),
    "expired before": text('{"token": "abc", "issued_at": "2020-01-01T00:00:00Z"}'),
    "an odd instant": text('{"token": "abc", "issued_at": "yesterday"}'),
    "no HTTP": Reply(raw=b"SSH-2.0-OpenSSH_9.2\r\n"),
    "nothing": Reply(raw=b""),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_token_service_that_sends_rubbish_is_answered_502_and_nothing_is_sent(
    client: Client, registry: Registry, how: str
) -> None:
    answering(registry, lambda: BROKEN[how])
    for _ in range(3):
        assert code(client("/v2/a/manifests/1")) == (502, "upstream")
    assert len(registry.service.asked) == 1  # the failure is remembered for a moment
    assert not registry.registry.asked


def test_a_token_service_that_is_down_is_not_asked_for_each_repository(
    client: Client, registry: Registry
) -> None:
    answering(registry, lambda: text("oops", 503))
    found = [code(client(f"/v2/repository-{number}/manifests/1")) for number in range(5)]
    assert found == [(502, "upstream")] * 5
    assert len(registry.service.asked) == 1


def test_a_repository_that_the_account_may_not_reach_does_not_hinder_another_one(
    client: Client, registry: Registry
) -> None:
    registry.image("mine", "1")
    usual = registry.service.answer

    def answer(asked: Any, body: bytes) -> Reply:
        return text("{}", 403) if ":theirs:" in asked.query["scope"][0] else usual(asked, body)

    registry.service.answer = answer
    for _ in range(2):
        refused = client("/v2/theirs/manifests/1")
        assert code(refused) == (403, "upstream")
        assert b"does not permit" in refused.body
        assert client("/v2/mine/manifests/1").status == 200
    assert registry.scopes == ["repository:theirs:pull,push", "repository:mine:pull,push"]


def test_a_token_service_that_is_silent_holds_a_request_no_longer_than_it_may_wait(
    client: Client, registry: Registry
) -> None:
    answering(registry, lambda: Reply(delay=15))
    assert code(client("/v2/a/manifests/1")) == (504, "upstream")
    assert not registry.registry.asked


def test_a_token_that_lives_for_a_second_is_replaced_in_time(client: Client, registry: Registry) -> None:
    registry.image("a", "1")
    registry.lifetime = 1
    assert client("/v2/a/manifests/1").status == 200
    assert eventually(lambda: client("/v2/a/manifests/1").status == 200 and len(set(bearers(registry))) == 2)


def test_fifty_first_requests_at_once_cause_one_request_for_a_token(
    client: Client, registry: Registry
) -> None:
    registry.image("a", "1")
    usual = registry.service.answer
    registry.service.answer = lambda *asked: usual(*asked)._replace(delay=0.5)
    with ThreadPoolExecutor(25) as pool:
        found = list(pool.map(lambda _: client("/v2/a/manifests/1").status, range(50)))
    assert found == [200] * 50
    assert len(registry.service.asked) == 1


def test_a_client_that_comes_through_the_proxy_is_challenged_and_served(
    client: Client, registry: Registry, gateway: Mitm
) -> None:
    """As with HTTP_PROXY: the client asks the registry itself, first without its key."""
    registry.image("a", "1")
    host = registry.registry.url.removeprefix("http://")
    pair = base64.b64encode(f"anybody:{client.key.token}".encode()).decode()
    url = f"{registry.registry.url}/v2/a/manifests/1"
    assert code(ask(gateway.port, url, host=host)) == (403, "unsigned")  # sixty connections lead there
    assert ask(gateway.port, url, {"Authorization": f"Basic {pair}"}, host=host).status == 200
    assert not Traces([client.key.token]).found_in(str(registry.registry.asked).encode())


def test_other_paths_of_the_gateway_are_not_challenged(client: Client, gateway: Mitm) -> None:
    for path in ("/v2", "/", "/v3/", "/a/v2/"):
        answer = ask(gateway.port, path)
        assert code(answer) == (404, "not_found")
        assert answer.header("www-authenticate") is None
    wrong = base64.b64encode(b"somebody:password").decode()
    assert code(ask(gateway.port, "/v2/", {"Authorization": f"Basic {wrong}"})) == (401, "unsigned")
    assert code(ask(gateway.port, "/v2/", {"Authorization": "Bearer ps1_x"})) == (400, "malformed")
