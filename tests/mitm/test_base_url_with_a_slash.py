"""A base URL that ends in a slash, joined with a path that begins with one."""

from __future__ import annotations

import pytest

from support.asking import SECRET, Grant, ask, code
from support.gateways import MakeGateway
from support.lab import bearer_connection
from support.proxy import Mitm
from support.recorder import Recorder

GRANT = Grant("conn_a", paths="v1/*")


@pytest.fixture(scope="module", params=["on", "off"])
def gateway(request: pytest.FixtureRequest, module_gateway: MakeGateway, upstream: Recorder) -> Mitm:
    config = {"connections": {"conn_a": bearer_connection(upstream.url, SECRET)}}
    return module_gateway(config, "--set", f"presign_lane={request.param}")


def test_one_slash_too_many_behind_the_token_is_the_joint(gateway: Mitm, upstream: Recorder) -> None:
    assert code(ask(gateway.port, f"/p/{GRANT.token}//v1/models")) == (200, None)
    (seen,) = upstream.requests
    assert seen.target == "/v1/models"


@pytest.mark.parametrize(
    "path",
    ["///v1/models", "//v1//models", "/v1//models", "//v2/models", "//../v1/models", "/%2Fv1/models", "//"],
)
def test_any_other_doubled_slash_is_refused(path: str, gateway: Mitm, upstream: Recorder) -> None:
    assert code(ask(gateway.port, f"/p/{GRANT.token}{path}")) == (403, "path_not_allowed")
    assert not upstream.requests


def test_no_slash_is_taken_off_where_there_is_no_token(gateway: Mitm, upstream: Recorder) -> None:
    path = GRANT.target("v1/models").replace("/conn_a/", "/conn_a//")
    assert code(ask(gateway.port, path)) == (403, "path_not_allowed")
    assert not upstream.requests
