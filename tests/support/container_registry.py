"""A container registry in the hands of a test: the registry, its token service, and its store of blobs.

All three judge what they are sent. The registry takes only a bearer token that its service has issued, for
this repository and this action, and whose time has not passed. The service takes only the password. The store
takes no credential at all, as those of real registries, which refuse a URL that is signed in two ways.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import trustme

USER, PASSWORD, SERVICE = "robot", "dckr_pat_R3AL-0123456789", "registry.test"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


class Asked(NamedTuple):
    """One request to one of the three servers."""

    method: str
    target: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query)


class Reply(NamedTuple):
    """One answer. `raw` replaces everything."""

    status: int = 200
    headers: Mapping[str, str] = MappingProxyType({})
    body: bytes = b""
    delay: float = 0.0
    raw: bytes | None = None


class Server:
    """Listens on a port of its own, and keeps what it was asked."""

    def __init__(
        self, answer: Callable[[Asked, bytes], Reply], cert: trustme.LeafCert | None = None, host: str = ""
    ) -> None:
        """Args: cert: for TLS, under the name `host`."""
        self.asked: list[Asked] = []
        self.answer = answer
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                _serve(outer, self)

            def log_message(self, *_: Any) -> None:
                pass

        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
            setattr(Handler, f"do_{method}", Handler.handle_one)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        port = self._server.server_address[1]
        self.url = f"https://{host}:{port}" if cert is not None else f"http://127.0.0.1:{port}"
        if cert is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            cert.configure_cert(context)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _serve(server: Server, handler: BaseHTTPRequestHandler) -> None:
    body = _body(handler)
    asked = Asked(handler.command, handler.path, {k.lower(): v for k, v in handler.headers.items()})
    server.asked.append(asked)
    reply = server.answer(asked, body)
    time.sleep(reply.delay)
    if reply.raw is not None:
        handler.wfile.write(reply.raw)
        handler.close_connection = True
        return
    handler.send_response(reply.status)
    for name, value in reply.headers.items():
        handler.send_header(name, value)
    if "Content-Length" not in reply.headers:
        handler.send_header("Content-Length", str(len(reply.body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(reply.body)


def _body(handler: BaseHTTPRequestHandler) -> bytes:
    if "chunked" not in handler.headers.get("transfer-encoding", ""):
        return handler.rfile.read(int(handler.headers.get("content-length", 0)))
    found = b""
    while size := int(handler.rfile.readline().partition(b";")[0], 16):
        found += handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
    return found


class Registry:
    """The three servers, and what they know."""

    def __init__(self, cert: trustme.LeafCert | None = None, host: str = "") -> None:
        """Args: cert: for the registry itself, under the name `host`."""
        self.lifetime, self.members = 300, ("token",)
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.uploads: dict[str, bytes] = {}
        self.rights: dict[str, set[str]] = {"*": {"pull", "push", "delete", "*"}}
        self.tokens: dict[str, tuple[frozenset[str], float]] = {}
        self.registry, self.service, self.store = (
            Server(self._registry, cert, host),
            Server(self._service),
            Server(self._store),
        )

    @property
    def auth(self) -> dict[str, Any]:
        """The credential of a connection to it."""
        return {
            "type": "registry_token",
            "username": USER,
            "password": PASSWORD,
            "token_url": f"{self.service.url}/token",
            "service": SERVICE,
        }

    @property
    def scopes(self) -> list[str]:
        """Those that the service was asked for, in their order; empty for one without."""
        return [" ".join(one.query.get("scope", [])) for one in self.service.asked]

    def reset(self) -> None:
        for server in (self.registry, self.service, self.store):
            server.asked.clear()
        self.service.answer = self._service
        self.lifetime, self.members = 300, ("token",)

    def stop(self) -> None:
        for server in (self.registry, self.service, self.store):
            server.stop()

    def image(self, name: str, tag: str, layer: bytes = b"layer") -> str:
        """Put an image of one layer there; returns the digest of its layer."""
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
            }
        ).encode()
        for blob in (config, layer):
            self.blobs[name, digest(blob)] = blob
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "size": len(config), "digest": digest(config)},
            "layers": [{"mediaType": LAYER, "size": len(layer), "digest": digest(layer)}],
        }
        body = json.dumps(manifest).encode()
        self.manifests[name, tag] = self.manifests[name, digest(body)] = (MANIFEST, body)
        return digest(layer)

    def issued(self, token: str, **more: Any) -> Reply:
        """The answer that issues a token."""
        now = datetime.fromtimestamp(int(time.time()), UTC).strftime("%Y-%m-%dT%H:%M:%S.000000123Z")
        found = dict.fromkeys(self.members, token) | {"expires_in": self.lifetime, "issued_at": now} | more
        return Reply(200, {"Content-Type": "application/json; charset=utf-8"}, json.dumps(found).encode())

    def _service(self, asked: Asked, body: bytes) -> Reply:
        pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if asked.headers.get("authorization") != f"Basic {pair}":
            return Reply(401)
        if (
            asked.method != "GET"
            or body
            or asked.path != "/token"
            or not asked.query["service"][0].startswith(SERVICE)
        ):
            return Reply(400)
        granted = []
        for scope in asked.query.get("scope", []):
            kind, name, actions = scope.split(":")
            rights = self.rights.get(name, self.rights["*"])
            granted += [f"{kind}:{name}:{action}" for action in actions.split(",") if action in rights]
        token = f"token-{secrets.token_urlsafe(24)}"
        self.tokens[token] = (frozenset(granted), time.time() + self.lifetime)
        return self.issued(token)

    def _registry(self, asked: Asked, body: bytes) -> Reply:
        kind, _, token = asked.headers.get("authorization", "").partition(" ")
        granted, until = self.tokens.get(token, (frozenset(), 0.0))
        action = {"GET": "pull", "HEAD": "pull", "DELETE": "delete"}.get(asked.method, "push")
        name, place, rest = _parts(asked.path)
        if kind != "Bearer" or time.time() > until:
            return self._unauthorized(asked)
        if asked.path == "/v2/":
            return Reply(200, {"Docker-Distribution-API-Version": "registry/2.0"}, b"{}")
        if asked.path == "/v2/_catalog":
            allowed = "registry:catalog:*" in granted
            return _json({"repositories": ["a"]}) if allowed else self._unauthorized(asked)
        if f"repository:{name}:{action}" not in granted:
            return self._unauthorized(asked)
        if place == "manifests":
            return self._manifest(asked, name, rest, body)
        if place == "tags":
            return _json({"name": name, "tags": [tag for one, tag in self.manifests if one == name]})
        if rest.startswith("uploads/"):
            return self._upload(asked, name, rest, body, granted)
        return self._blob(asked, name, rest)

    def _unauthorized(self, asked: Asked) -> Reply:
        """As a hostile registry: the realm is where the password must never go."""
        realm = f'Bearer realm="{self.store.url}/stolen",service="x",scope="repository:a:pull"'
        return Reply(401, {"WWW-Authenticate": realm}, b'{"errors":[{"code":"UNAUTHORIZED"}]}')

    def _manifest(self, asked: Asked, name: str, reference: str, body: bytes) -> Reply:
        if asked.method == "PUT":
            media = asked.headers["content-type"]
            self.manifests[name, reference] = self.manifests[name, digest(body)] = (media, body)
            where = f"{self.registry.url}/v2/{name}/manifests/{digest(body)}"
            return Reply(201, {"Location": where, "Docker-Content-Digest": digest(body)})
        if asked.method == "DELETE":
            return Reply(202 if self.manifests.pop((name, reference), None) else 404)
        if (name, reference) not in self.manifests:
            return Reply(404, {}, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
        media, found = self.manifests[name, reference]
        return Reply(200, {"Content-Type": media, "Docker-Content-Digest": digest(found)}, found)

    def _blob(self, asked: Asked, name: str, wanted: str) -> Reply:
        blob = self.blobs.get((name, wanted))
        if blob is None:
            return Reply(404, {}, b'{"errors":[{"code":"BLOB_UNKNOWN"}]}')
        if asked.method == "HEAD":
            return Reply(200, {"Content-Length": str(len(blob)), "Docker-Content-Digest": wanted})
        return Reply(307, {"Location": f"{self.store.url}/{name}/{wanted}?signed=by-the-registry"})

    def _upload(self, asked: Asked, name: str, rest: str, body: bytes, granted: frozenset[str]) -> Reply:
        sources, wanted = asked.query.get("from", []), asked.query.get("mount", [])
        if asked.method == "POST":
            if sources and f"repository:{sources[0]}:pull" in granted:
                self.blobs[name, wanted[0]] = self.blobs[sources[0], wanted[0]]
                return Reply(201, {"Location": f"/v2/{name}/blobs/{wanted[0]}"})
            upload = secrets.token_hex(8)
            self.uploads[upload] = b""
            return Reply(202, {"Location": self._place(name, upload), "Range": "0-0"})
        upload = rest.removeprefix("uploads/")
        if upload not in self.uploads or asked.query.get("_state") != [f"of-{upload}"]:
            return Reply(404)
        self.uploads[upload] += body
        if asked.method == "PATCH":
            return Reply(202, {"Location": self._place(name, upload)})
        found = self.uploads.pop(upload)
        if [digest(found)] != asked.query.get("digest"):
            return Reply(400)
        self.blobs[name, digest(found)] = found
        return Reply(201, {"Location": f"{self.registry.url}/v2/{name}/blobs/{digest(found)}"})

    def _place(self, name: str, upload: str) -> str:
        return f"{self.registry.url}/v2/{name}/blobs/uploads/{upload}?_state=of-{upload}"

    def _store(self, asked: Asked, body: bytes) -> Reply:
        name, _, wanted = asked.path[1:].rpartition("/")
        blob = self.blobs.get((name, wanted))
        if "authorization" in asked.headers or blob is None or asked.query.get("signed") is None:
            return Reply(400)
        return Reply(200, {"Content-Type": "application/octet-stream"}, blob)


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _json(found: Any) -> Reply:
    return Reply(200, {"Content-Type": "application/json"}, json.dumps(found).encode())


def _parts(path: str) -> tuple[str, str, str]:
    """Repository, kind and rest of a path."""
    for place in ("manifests", "blobs", "tags"):
        name, found, rest = path.removeprefix("/v2/").rpartition(f"/{place}/")
        if found:
            return name, place, rest
    return "", "", ""


@contextmanager
def running(cert: trustme.LeafCert | None = None, host: str = "") -> Iterator[Registry]:
    found = Registry(cert, host)
    try:
        yield found
    finally:
        found.stop()
