"""What the gateway is measured beside: nginx as upstream, nginx with njs and HAProxy doing the same check."""

from __future__ import annotations

import base64
import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from throughput import SECRET, free_port, running

from support.programs import PROGRAMS, find
from support.serving import children_of

CREDENTIAL: Final = "sk-real-0123456789abcdef"
MODULE: Final = PROGRAMS["njs"].path

_NGINX = """
{load}
daemon off; worker_processes 1; pid {directory}/{name}.pid; error_log {directory}/{name}.err;
events {{ worker_connections 4096; }}
http {{
  keepalive_requests 100000000; client_max_body_size 0; access_log {log};
  client_body_temp_path {directory}/t1; proxy_temp_path {directory}/t2; fastcgi_temp_path {directory}/t3;
  uwsgi_temp_path {directory}/t4; scgi_temp_path {directory}/t5;
  {body}
}}
"""
_UPSTREAM = """
  server {{
    listen 127.0.0.1:{plain}; listen 127.0.0.1:{secure} ssl;
    ssl_certificate {directory}/server.pem; ssl_certificate_key {directory}/server.pem;
    location / {{ default_type application/json; return 200 '{{"ok":true}}'; }}
    location /v1/big {{ default_type application/octet-stream; alias {directory}/big; }}
  }}
"""
_PROXY = """
  upstream api {{ server 127.0.0.1:{upstream}; keepalive 128; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_http_version 1.1; proxy_set_header Connection "";
      {check}
      proxy_pass http://api;
    }}
  }}
"""
_CHECK = """
      if ($decided = "") {{ return 403; }}
      rewrite ^ $decided break;
      proxy_set_header Authorization "Bearer {credential}"; proxy_set_header Accept-Encoding identity;
"""
_NJS = """
const crypto = require('crypto');
function decided(r) {{
    const asked = r.args, expires = asked['X-Presign-Expires'], methods = asked['X-Presign-Methods'];
    const paths = asked['X-Presign-Paths'], given = asked['X-Presign-Signature'];
    if (!expires || !methods || !paths || !given || !/^[0-9]+$/.test(expires)) return '';
    if (!r.uri.startsWith('/api/proxy/conn_bench/')) return '';
    const text = ['PRESIGN-HMAC-SHA256', 'conn_bench', expires, methods, paths].join('\\n');
    const made = crypto.createHmac('sha256', '{secret}').update(text).digest('hex');
    if (made.length != given.length) return '';
    let differs = 0;
    for (let i = 0; i < made.length; i++) differs |= made.charCodeAt(i) ^ given.charCodeAt(i);
    if (differs || Number(expires) < Date.now() / 1000) return '';
    if (methods != '*' && methods.split(',').indexOf(r.method) < 0) return '';
    const path = r.uri.substring('/api/proxy/conn_bench'.length);
    const matches = paths.split(',').some(one => one.endsWith('*')
        ? path.startsWith('/' + one.substring(0, one.length - 1)) : path == '/' + one);
    return matches ? path : '';
}}
export default {{ decided }};
"""
_HAPROXY = """
global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend f
  bind 127.0.0.1:{port}
  http-request set-var(txn.e) url_param(X-Presign-Expires)
  http-request set-var(txn.m) url_param(X-Presign-Methods),url_dec
  http-request set-var(txn.p) url_param(X-Presign-Paths),url_dec
  http-request set-var(txn.s) url_param(X-Presign-Signature)
  http-request set-var-fmt(txn.t) "{label}\\n%[var(txn.e)]\\n%[var(txn.m)]\\n%[var(txn.p)]"
  http-request set-var(txn.h) var(txn.t),hmac(sha256,{key}),hex,lower
  http-request deny unless {{ var(txn.h),strcmp(txn.s) eq 0 }}
  http-request set-var(txn.now) date
  http-request deny unless {{ var(txn.e),sub(txn.now) ge 0 }}
  http-request deny unless {{ method GET }} {{ var(txn.m) -m str GET }}
  http-request deny unless {{ path_beg /api/proxy/conn_bench/v1/ }}
  http-request set-uri %[path,regsub(^/api/proxy/conn_bench,)]
  http-request set-header Authorization "Bearer {credential}"
  default_backend b
backend b
  http-reuse always
  server s 127.0.0.1:{upstream}
"""


class Ports(NamedTuple):
    """Where the upstream listens."""

    plain: int
    secure: int


@contextlib.contextmanager
def upstream(directory: Path) -> Iterator[Ports]:
    """nginx, over http and over https with a certificate of `directory`/ca.pem."""
    certify(directory)
    with (directory / "big").open("wb") as big:
        big.truncate(1 << 30)
    ports = Ports(free_port(), free_port())
    body = _UPSTREAM.format(directory=directory, plain=ports.plain, secure=ports.secure)
    with _nginx(directory, "upstream", body, ports.plain):
        yield ports


@contextlib.contextmanager
def nginx_proxy(directory: Path, behind: int, *, check: bool) -> Iterator[tuple[int, int]]:
    """Yields port and process id; with the check, it writes a line for each request, as the gateway does."""
    port, name = free_port(), "njs" if check else "plain"
    (directory / "presign.js").write_text(_NJS.format(secret=SECRET))
    imported = f"js_path {directory}; js_import p from presign.js; js_set $decided p.decided;"
    checking = _CHECK.format(credential=CREDENTIAL) if check else ""
    body = _PROXY.format(upstream=behind, port=port, check=checking)
    log, load = ("off", "") if not check else (f"{directory}/njs.log", f"load_module {MODULE};")
    with _nginx(directory, name, (imported if check else "") + body, port, log, load) as pid:
        yield port, pid


@contextlib.contextmanager
def haproxy(directory: Path, behind: int) -> Iterator[tuple[int, int]]:
    port, path = free_port(), directory / "haproxy.cfg"
    key = base64.b64encode(SECRET.encode()).decode()
    label = r"PRESIGN-HMAC-SHA256\nconn_bench"
    path.write_text(_HAPROXY.format(port=port, upstream=behind, key=key, credential=CREDENTIAL, label=label))
    with running(str(find("haproxy")), "-q", "-db", "-f", str(path)) as process:
        listens(port)
        yield port, process.pid


@contextlib.contextmanager
def _nginx(
    directory: Path, name: str, body: str, port: int, log: str = "off", load: str = ""
) -> Iterator[int]:
    path = directory / f"{name}.conf"
    path.write_text(_NGINX.format(directory=directory, name=name, body=body, log=log, load=load))
    with running(str(find("nginx")), "-c", str(path)) as process:
        listens(port)
        yield process.pid


def listens(port: int) -> None:
    """Wait until something does."""
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on {port}")


def certify(directory: Path) -> None:
    """An authority, and a certificate of it for 127.0.0.1 and localhost."""
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(
        directory / "server.pem"
    )


def children(pid: int) -> list[int]:
    return [pid, *children_of(pid)]
