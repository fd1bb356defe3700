"""The scope that a token is asked for: the one repository that the path names, with the rights it needs."""

from __future__ import annotations

import pytest

from presign_proxy.core.ceiling import Ceiling
from presign_proxy.core.connection import Reached, Upstream
from presign_proxy.core.credentials import HeaderCredential, NoCredential, Outgoing, bearer, filling
from presign_proxy.core.decision import Forward
from presign_proxy.core.oauth2 import MintedSecret, TokenRequest
from presign_proxy.core.registry_scope import scope_of
from presign_proxy.core.registry_token import RegistryTokenRequest
from presign_proxy.http.message import Origin
from presign_proxy.signing.secret import LateSecret, Secret
from support.deciding import connection, registry, request, sent, signed

PULL, PUSH, DELETE = "repository:{}:pull", "repository:{}:pull,push", "repository:{}:delete"
SERVICE = Origin("https", "auth.example.com", 443)
UPSTREAM = Upstream(Origin("https", "registry.example.com", 443), b"/base")


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/v2/", ""),
        ("GET", "/v2", ""),
        ("GET", "/", ""),
        ("GET", "/v1/search", ""),
        ("GET", "/v2/_catalog", "registry:catalog:*"),
        ("GET", "/v2/a/manifests/latest", PULL.format("a")),
        ("HEAD", "/v2/team/app/manifests/sha256:0", PULL.format("team/app")),
        ("GET", "/v2/team/app/blobs/sha256:0", PULL.format("team/app")),
        ("GET", "/v2/team/app/tags/list", PULL.format("team/app")),
        ("GET", "/v2/team/app/referrers/sha256:0", PULL.format("team/app")),
        ("PUT", "/v2/a/manifests/latest", PUSH.format("a")),
        ("POST", "/v2/a/b/c/blobs/uploads/", PUSH.format("a/b/c")),
        ("PATCH", "/v2/a/blobs/uploads/0-1_2", PUSH.format("a")),
        ("PUT", "/v2/a/blobs/upload/0", PUSH.format("a")),  # as at ghcr.io
        ("DELETE", "/v2/a/manifests/sha256:0", DELETE.format("a")),
        ("DELETE", "/v2/a/blobs/sha256:0", DELETE.format("a")),
        ("GET", "/v2/a/manifests/b/blobs/sha256:0", PULL.format("a/manifests/b")),
        ("GET", "/v2/blobs/blobs/blobs", PULL.format("blobs")),
        ("GET", "/v2/manifests/latest", ""),
        ("GET", "/v2/blobs/uploads/0", ""),
        ("GET", "/v2/a/manifests", ""),
        ("GET", "/v2/a/other/latest", ""),
        ("GET", "/v2/a_b-c.d/manifests/1", PULL.format("a_b-c.d")),
    ],
)
def test_a_path_names_the_repository_and_a_method_the_rights(method: str, path: str, scope: str) -> None:
    assert scope_of(method.encode(), path.encode(), writes=False) == scope


@pytest.mark.parametrize(
    "name",
    [
        "A",
        "a:pull,push",
        "a%20repository:b",
        "a,b",
        "-a",
        "a.",
        "a/..",
        "a/",
        "a//b",
        "a b",
        "a?b",
        "a" * 256,
    ],
)
def test_a_name_that_is_none_of_a_repository_asks_for_no_right(name: str) -> None:
    assert scope_of(b"GET", f"/v2/{name}/manifests/1".encode(), writes=False) == ""


def test_the_longest_name_is_one() -> None:
    name = "a/" * 127 + "b"
    assert scope_of(b"GET", f"/v2/{name}/manifests/1".encode(), writes=False) == PULL.format(name)


def test_a_push_reads_with_the_token_that_it_writes_with() -> None:
    """A repository that does not exist yet can be read only by an account that may create it."""
    assert scope_of(b"HEAD", b"/v2/a/blobs/sha256:0", writes=True) == "repository:a:pull,push"
    assert scope_of(b"DELETE", b"/v2/a/blobs/sha256:0", writes=True) == "repository:a:delete"


def late() -> MintedSecret:
    asked = RegistryTokenRequest(SERVICE, b"/token", "registry", Secret("me"), Secret("a-password"))
    return MintedSecret(asked, "mark")


def granted(path: str, *, methods: str = "*", allowed: tuple[str, ...] = ("*",)) -> Forward:
    token, ceiling = late(), Ceiling(methods=allowed)
    known = connection(upstream=UPSTREAM, injector=bearer(token), late=(token,), ceiling=ceiling)
    return sent(request(signed(path, methods=methods, paths="*")), registry(known))


def scope_in(forward: Forward) -> str:
    (token,) = forward.connection.late
    assert forward.connection.injector.secrets() == (token,)
    assert isinstance(token, MintedSecret)
    assert isinstance(token.request, RegistryTokenRequest)
    assert token.key == ("registry_token", "mark", token.request.scope)
    assert token.family == ("registry_token", "mark")
    return token.request.scope


def test_a_grant_has_a_token_for_its_own_request_alone() -> None:
    assert scope_in(granted("v2/a/manifests/1", methods="GET")) == "repository:a:pull"
    assert scope_in(granted("v2/b/manifests/1")) == "repository:b:pull,push"
    assert scope_in(granted("v2/")) == ""
    assert scope_in(granted("base/v2/a/manifests/1")) == ""


@pytest.mark.parametrize(
    ("methods", "allowed", "scope"),
    [
        ("GET,PUT", ("*",), "repository:a:pull,push"),
        ("GET,POST", ("*",), "repository:a:pull"),  # without a PUT, no push ends
        ("*", ("GET", "PUT"), "repository:a:pull,push"),
        ("*", ("GET", "HEAD"), "repository:a:pull"),
        ("GET", ("GET", "PUT"), "repository:a:pull"),
    ],
)
def test_a_read_asks_for_more_only_if_signature_and_connection_allow_a_push(
    methods: str, allowed: tuple[str, ...], scope: str
) -> None:
    assert scope_in(granted("v2/a/manifests/1", methods=methods, allowed=allowed)) == scope


def test_what_another_credential_needs_stays_as_it_is() -> None:
    program = LateSecret(("vault", "read"), 60)
    known = connection(upstream=UPSTREAM, injector=bearer(program), late=(program,))
    forward = sent(request(signed("v2/a/manifests/1", paths="*")), registry(known))
    assert forward.connection is known
    minted = MintedSecret(TokenRequest(SERVICE, b"/", "client_credentials", Secret("me")), "mark")
    other = connection(upstream=UPSTREAM, injector=bearer(minted), late=(minted,))
    forward = sent(request(signed("v2/a/manifests/1", paths="*")), registry(other))
    assert forward.connection is other


def test_another_upstream_of_the_connection_that_gets_no_credential_gets_no_token() -> None:
    token = late()
    known = connection(upstream=UPSTREAM, injector=bearer(token), late=(token,))
    store = Upstream(Origin("https", "store.example.com", 443), name="store")
    reached = {"": Reached(UPSTREAM, known.injector), "store": Reached(store, NoCredential())}
    both = connection(upstream=None, injector=known.injector, late=(token,), upstreams=reached).at(
        reached[""]
    )
    path = "@store/v2/a/manifests/1"
    forward = sent(request(signed(path, paths="@store/*")), registry(both))
    assert forward.origin == store.origin
    assert forward.connection.injector.secrets() == ()


def test_another_upstream_has_the_token_in_its_own_place_and_hinders_no_other() -> None:
    token = late()
    api = Upstream(Origin("https", "api.example.com", 443), name="api")
    in_header = HeaderCredential(((b"X-Token", b"", token),))
    reached = {"": Reached(UPSTREAM, bearer(token)), "api": Reached(api, in_header)}
    both = connection(upstream=None, injector=bearer(token), late=(token,), upstreams=reached).at(reached[""])
    for path, name, value in (
        ("v2/a/manifests/1", b"Authorization", b"Bearer a-token"),
        ("@api/v2/a/manifests/1", b"X-Token", b"a-token"),
    ):
        forward = sent(request(signed(path, methods="GET", paths=path)), registry(both))
        (needed,) = forward.connection.late
        assert needed.key == ("registry_token", "mark", "repository:a:pull")
        filled = forward.filled(filling({needed.key: Secret("a-token")}))
        assert isinstance(filled.sent, Outgoing)
        assert dict(filled.sent.fields)[name] == value
