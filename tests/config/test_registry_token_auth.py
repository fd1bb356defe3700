"""`auth: {type: registry_token}` in a file: which token service gets the password, and when none is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from presign_proxy.config.load import load
from presign_proxy.config_problems import ConfigError
from presign_proxy.core.oauth2 import MintedSecret
from presign_proxy.core.registry_token import RegistryTokenRequest
from support.asking import SECRET
from support.config import write_config

PASSWORD = "dckr_pat_R3AL-0123456789"
PAIR = {"username": "me", "password": PASSWORD}
HARBOR = {"token_url": "https://harbor.example/service/token", "service": "harbor-registry"}


def written(tmp_path: Path, **entry: Any) -> Path:
    return write_config({"connections": {"conn": {"signing_keys": [{"secret": SECRET}]} | entry}}, tmp_path)


def asked(tmp_path: Path, **entry: Any) -> RegistryTokenRequest:
    (late,) = load(written(tmp_path, **entry), {"P": PASSWORD}).registry.connections["conn"].late
    assert isinstance(late, MintedSecret)
    assert isinstance(late.request, RegistryTokenRequest)
    return late.request


def problems(tmp_path: Path, **entry: Any) -> str:
    with pytest.raises(ConfigError) as error:
        load(written(tmp_path, **entry), {})
    found = "\n".join(str(problem) for problem in error.value.problems)
    assert PASSWORD not in found
    return found


def where(request: RegistryTokenRequest) -> tuple[str, str]:
    return f"{request.origin}{request.target.decode()}", request.service


def test_the_preset_is_for_docker_hub(tmp_path: Path) -> None:
    found = asked(tmp_path, preset="oci", auth={"username": "me", "password": {"env": "P"}})
    assert where(found) == ("https://auth.docker.io/token", "registry.docker.io")
    assert [found.username.reveal(), found.password.reveal()] == ["me", PASSWORD]
    known = load(written(tmp_path, preset="oci", auth=PAIR), {}).registry.connections["conn"]
    assert str(known.upstream.origin) == "https://registry-1.docker.io"  # type: ignore[union-attr]
    assert known.conduct.challenge
    assert known.conduct.redirects


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [
        ("https://ghcr.io", ("https://ghcr.io/token", "ghcr.io")),
        ("https://quay.io", ("https://quay.io/v2/auth", "quay.io")),
        ("https://registry.gitlab.com", ("https://gitlab.com/jwt/auth", "container_registry")),
    ],
)
def test_the_host_of_a_public_registry_tells_its_token_service(
    tmp_path: Path, upstream: str, expected: tuple[str, str]
) -> None:
    assert where(asked(tmp_path, preset="oci", upstream=upstream, auth=PAIR)) == expected


def test_a_token_service_is_reached_as_its_registry_is(tmp_path: Path) -> None:
    assert not asked(tmp_path, preset="oci", auth=PAIR).direct
    assert asked(tmp_path, preset="oci", auth=PAIR, upstream_proxy="none").direct


def test_a_password_may_be_printed_by_a_program(tmp_path: Path) -> None:
    found = asked(tmp_path, preset="oci", auth=PAIR | {"password": {"exec": ["/bin/echo", "printed"]}})
    assert [one.argv for one in found.late] == [("/bin/echo", "printed")]


def test_another_registry_needs_its_own_token_service(tmp_path: Path) -> None:
    """The password for one registry must not go to the service of another one."""
    entry: dict[str, Any] = {"preset": "oci", "upstream": "https://harbor.example"}
    said = problems(tmp_path, **entry, auth=PAIR)
    assert "auth.token_url: is required, with service" in said
    assert where(asked(tmp_path, **entry, auth=PAIR | HARBOR)) == tuple(HARBOR.values())


def test_a_custom_preset_keeps_its_token_service_for_its_own_registry(tmp_path: Path) -> None:
    preset = {
        "name": "Harbor",
        "upstream": "https://harbor.example",
        "auth": {"type": "registry_token", "asks": {"username": "user", "password": "password"}} | HARBOR,
    }
    write_config({"presets": {"harbor": preset}}, tmp_path, "presets.yaml")

    def there(**entry: Any) -> Path:
        entry = {"preset": "harbor", "auth": PAIR, "signing_keys": [{"secret": SECRET}]} | entry
        return write_config({"presets": "presets.yaml", "connections": {"conn": entry}}, tmp_path)

    (late,) = load(there(), {}).registry.connections["conn"].late
    assert where(late.request) == tuple(HARBOR.values())  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="token_url: is required"):
        load(there(upstream="https://other.example"), {})


@pytest.mark.parametrize(
    ("auth", "said"),
    [
        (HARBOR | {"token_url": "http://harbor.example/service/token"}, "auth.token_url: is not https"),
        (HARBOR | {"token_url": "https://u:p@harbor.example/"}, "auth.token_url: has to be an http(s) URL"),
        ({"token_url": HARBOR["token_url"]}, "auth: token_url and service belong together"),
        ({"service": HARBOR["service"]}, "auth: token_url and service belong together"),
        (HARBOR | {"scope": "registry:catalog:*"}, "auth.scope: "),
        (HARBOR | {"username": "a:b"}, "auth.username: contains a colon"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, auth: dict[str, Any], said: str) -> None:
    whole = {"type": "registry_token"} | PAIR | auth
    assert said in problems(tmp_path, upstream="https://harbor.example", auth=whole)


def test_user_and_password_are_required(tmp_path: Path) -> None:
    for member in PAIR:
        auth = {"type": "registry_token"} | HARBOR | {key: PAIR[key] for key in PAIR if key != member}
        assert f"auth.{member}: is required" in problems(tmp_path, upstream="https://a.example", auth=auth)


def test_a_project_of_sources_has_no_registry(tmp_path: Path) -> None:
    source = {
        "scheme": "source",
        "mode": "signed",
        "formats": ["jpg"],
        "allowed_origins": ["https://a.example"],
    }
    auth = {"type": "registry_token"} | PAIR | HARBOR
    assert "auth.type: registry_token needs an upstream" in problems(tmp_path, **source, auth=auth)


def test_a_signing_secret_that_is_the_password_is_refused(tmp_path: Path) -> None:
    entry = {"preset": "oci", "auth": {"username": "me", "password": SECRET}}
    assert "is the credential itself" in problems(tmp_path, **entry)
