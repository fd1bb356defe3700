"""Clients of container registries: the gateway is the registry, or the proxy, and the key is the password.

The registry and its token service are stand-ins that judge what they are sent (`support.container_registry`).
"""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from support.asking import SECRET, Grant
from support.container_registry import PASSWORD, Registry, running
from support.gateways import MakeGateway
from support.lanes import WAYS
from support.leaks import Traces
from support.proxy import Mitm

HOST = "registry.tls.test"
LAYER = b"a layer of an image " * 5000
READS = {"methods": "GET,HEAD", "paths": "v2/team/app/*"}
WRITES = {"methods": "GET,HEAD,PATCH,POST,PUT", "paths": "v2/team/new/*"}


@pytest.fixture(scope="module")
def registry(ca: trustme.CA) -> Iterator[Registry]:
    with running(ca.issue_cert(HOST), HOST) as found:
        yield found


@pytest.fixture(scope="module", params=("lane", "flows"))
def gateway(request: Any, module_gateway: MakeGateway, registry: Registry) -> Mitm:
    config = {
        "gateway": {"hosts": ["presign.local"], "unsigned": "deny"},
        "connections": {
            "conn_registry": {
                "preset": "oci",
                "upstream": registry.registry.url,
                "auth": registry.auth,
                "signing_keys": [{"secret": SECRET}],
            }
        },
    }
    return module_gateway(config, *WAYS[request.param], dns={HOST: ["127.0.0.1"]})


class Skopeo:
    """Runs skopeo, which asks the gateway as a registry, or the registry through the gateway as its proxy."""

    def __init__(self, gateway: Mitm, registry: Registry, directory: Path, *, proxy: bool) -> None:
        registry.reset()
        self.host = registry.registry.url.removeprefix("https://") if proxy else f"127.0.0.1:{gateway.port}"
        self._directory = directory
        self._environ = {"PATH": "/usr/bin:/bin", "HOME": str(directory), "TMPDIR": str(directory)}
        if proxy:
            self._environ |= {"HTTPS_PROXY": gateway.url, "SSL_CERT_FILE": str(gateway.ca)}
        self._plain = [] if proxy else ["tls-verify=false"]

    def copy(self, source: str, target: str, key: Grant, *, pushes: bool) -> subprocess.CompletedProcess[str]:
        side = "dest" if pushes else "src"
        options = [f"--{side}-{one}" for one in (*self._plain, f"creds=somebody:{key.token}")]
        return subprocess.run(
            ["skopeo", "--insecure-policy", "copy", *options, source, target],
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
            env=self._environ,
            cwd=self._directory,
        )

    def pull(self, name: str, **signed: Any) -> subprocess.CompletedProcess[str]:
        return self.copy(
            f"docker://{self.host}/{name}",
            f"dir:{self._directory}/image",
            Grant("conn_registry", **signed),
            pushes=False,
        )

    def push(self, name: str, **signed: Any) -> subprocess.CompletedProcess[str]:
        return self.copy(
            f"dir:{self._directory}/image",
            f"docker://{self.host}/{name}",
            Grant("conn_registry", **signed),
            pushes=True,
        )


@pytest.fixture(params=("registry", "proxy"))
def skopeo(request: Any, gateway: Mitm, registry: Registry, tmp_path: Path) -> Skopeo:
    return Skopeo(gateway, registry, tmp_path, proxy=request.param == "proxy")


@pytest.mark.needs("skopeo")
def test_skopeo_pulls_an_image_and_pushes_it_again(
    skopeo: Skopeo, registry: Registry, gateway: Mitm, tmp_path: Path
) -> None:
    layer = registry.image("team/app", "1.0", LAYER)
    done = skopeo.pull("team/app:1.0", **READS)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "image" / layer.removeprefix("sha256:")).read_bytes() == LAYER
    done = skopeo.push("team/new:2.0", **WRITES)
    assert done.returncode == 0, done.stderr
    manifest = json.loads(registry.manifests["team/new", "2.0"][1])
    pushed = registry.blobs["team/new", manifest["layers"][0]["digest"]]
    assert gzip.decompress(pushed) == LAYER  # skopeo packs what is not
    assert set(registry.scopes) <= {"repository:team/app:pull", "repository:team/new:pull,push"}
    for server in (registry.registry, registry.store):
        assert not Traces([PASSWORD, SECRET]).found_in(str(server.asked).encode())
    assert not Traces([PASSWORD]).found_in(gateway.log().encode())


@pytest.mark.needs("skopeo")
def test_skopeo_gets_no_image_that_was_not_signed(skopeo: Skopeo, registry: Registry) -> None:
    registry.image("team/app", "1.0", LAYER)
    registry.image("team/other", "1.0", LAYER)
    asked = len(registry.registry.asked)
    for name, signed in (
        ("team/other:1.0", READS),
        ("team/app:1.0", READS | {"expires": 1}),
        ("team/app:1.0", READS | {"secret": "another secret of nobody"}),
    ):
        done = skopeo.pull(name, **signed)
        assert done.returncode != 0
        assert "403" in done.stderr or "denied" in done.stderr.lower() or "unauthorized" in done.stderr, done
    assert len(registry.registry.asked) == asked


@pytest.mark.needs("docker")
def test_docker_signs_in_and_reads_a_manifest(gateway: Mitm, registry: Registry, tmp_path: Path) -> None:
    """The command alone, as no daemon runs: it asks the registry itself."""
    registry.reset()
    registry.image("team/app", "1.0", LAYER)
    host = f"127.0.0.1:{gateway.port}"
    environ = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(tmp_path), "DOCKER_HOST": "unix:///none"}

    def docker(*args: str, key: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", *args], input=key, capture_output=True, check=False, text=True, timeout=60, env=environ
        )

    login = ("login", "--username", "presign", "--password-stdin", host)
    for signed in (READS, READS | {"secret": "another secret of nobody"}):  # the first may not ask for /v2/
        assert docker(*login, key=Grant("conn_registry", **signed).token).returncode != 0
    assert not registry.registry.asked
    key = Grant("conn_registry", methods="GET,HEAD", paths="v2/,v2/team/app/*").token
    done = docker(*login, key=key)
    assert done.returncode == 0, done.stderr
    done = docker("manifest", "inspect", "--insecure", f"{host}/team/app:1.0")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["layers"][0]["size"] == len(LAYER)
    assert set(registry.scopes) <= {"", "repository:team/app:pull"}
