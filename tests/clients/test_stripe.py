"""Stripe's SDK, unchanged, through a real gateway: its list, its uploads at another host, and its errors."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import stripe

from support.apis import OWN_KEY, Credential, check_sent
from support.asking import Grant
from support.lab import REAL_SECRET
from support.proxy import Mitm
from support.recorder import Recorder
from support.stripe_api import CUSTOMERS

LISTED = Grant("conn_stripe", "GET,POST", "@files/v1/files,v1/customers")
BASIC: Credential = ("authorization", "Basic " + base64.b64encode(f"{REAL_SECRET}:".encode()).decode())


class Way(NamedTuple):
    """What a user gives to the SDK."""

    key: str
    api: str = ""
    files: str = ""
    proxy: str = ""


WAYS: dict[str, Callable[[Mitm, str], Way]] = {
    "a key and a proxy": lambda proxy, token: Way(token, proxy=proxy.url),
    "a key in the shape of Stripe's": lambda proxy, token: Way(f"sk_test_{token}", proxy=proxy.url),
    "a token in the base address": lambda proxy, token: Way(
        OWN_KEY, f"{proxy.url}/p/{token}", f"{proxy.url}/p/{token}/@files"
    ),
    "a key and the address of the connection": lambda proxy, token: Way(
        token, f"{proxy.url}/api/proxy/conn_stripe", f"{proxy.url}/api/proxy/conn_stripe/@files"
    ),
}


@pytest.fixture(autouse=True)
def trust(environment: None, proxy: Mitm, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK brings authorities of its own, and reads no variable that names others."""
    monkeypatch.setattr(stripe, "ca_bundle_path", str(proxy.ca))


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def client(proxy: Mitm, way: str, grant: Grant, monkeypatch: pytest.MonkeyPatch) -> stripe.StripeClient:
    given = WAYS[way](proxy, grant.token)
    if given.proxy:
        monkeypatch.setenv("HTTPS_PROXY", given.proxy)
        return stripe.StripeClient(given.key, max_network_retries=0)
    addresses: stripe._base_address.BaseAddresses = {"api": given.api, "files": given.files}
    return stripe.StripeClient(given.key, base_addresses=addresses, max_network_retries=0)


def test_the_sdk_reads_a_list_page_by_page(
    proxy: Mitm, api: Recorder, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = client(proxy, way, LISTED, monkeypatch).v1.customers.list({"limit": 1})
    assert [one.id for one in found.auto_paging_iter()] == list(CUSTOMERS)
    first, second = api.wait_for(2)
    assert first.target == "/v1/customers?limit=1"
    assert sorted(second.target.partition("?")[2].split("&")) == ["limit=1", "starting_after=cus_1"]
    for seen in (first, second):
        assert seen.all("host") == ["api.stripe.com"]
        check_sent(seen, BASIC)


def test_the_sdk_creates_and_uploads_to_the_other_host(
    proxy: Mitm, api: Recorder, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk = client(proxy, way, LISTED, monkeypatch)
    assert sdk.v1.customers.create({"name": "Ada"}, {"idempotency_key": "once"}).id == "cus_new"
    evidence = io.BytesIO(b"evidence" * 1000)
    assert sdk.v1.files.create({"purpose": "dispute_evidence", "file": evidence}).id == "file_1"
    created, uploaded = api.wait_for(2)
    assert (created.body, created.all("idempotency-key")) == (b"name=Ada", ["once"])
    assert uploaded.all("host") == ["files.stripe.com"]
    assert b"evidence" * 1000 in (uploaded.body or b"")
    for seen in (created, uploaded):
        check_sent(seen, BASIC)


@pytest.mark.parametrize(
    ("grant", "code"),
    [
        (Grant("conn_stripe", "GET", "v1/balance"), "path_not_allowed"),
        (Grant("conn_stripe", "GET", "*", expires=1714808400), "expired"),
        (Grant("conn_stripe", "GET", "*", secret="sk_another_0123456789abcdef"), "invalid"),
    ],
)
def test_the_sdk_raises_its_own_error_with_our_message(
    proxy: Mitm, api: Recorder, way: str, grant: Grant, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(stripe.PermissionError) as caught:
        client(proxy, way, grant, monkeypatch).v1.customers.list()
    answer: Any = caught.value.json_body
    assert (caught.value.http_status, answer["error"]["code"]) == (403, code)
    assert caught.value.user_message == answer["error"]["message"]
    assert not api.touched
