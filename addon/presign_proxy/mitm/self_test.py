"""A test, at start, of what we lean on inside mitmproxy: if any of it is unknown, nothing is forwarded."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Final

from h2.connection import H2Connection
from h2.frame_buffer import FrameBuffer
from h11._readers import ChunkedReader, Http10Reader
from mitmproxy import version
from mitmproxy.addonmanager import AddonManager
from mitmproxy.addons import proxyserver, tlsconfig
from mitmproxy.connection import Server
from mitmproxy.master import Master
from mitmproxy.proxy import layer, layers, mode_servers, server
from mitmproxy.proxy.layers import http
from mitmproxy.proxy.layers.http import _http1, _http2, _http_h2

from ..prerequisites import INSTALL_MITMPROXY, unsupported_mitmproxy

# Each with the parameters it is called or overridden with; None where only its being there counts.
_METHODS: Final[tuple[tuple[Any, str, tuple[str, ...] | None], ...]] = (
    (http.HttpLayer, "make_stream", ("stream_id",)),
    (http.HttpLayer, "register_connection", ("command",)),
    (http.HttpLayer, "_handle_event", ("event",)),
    (http.HttpStream, "_handle_event", ("event",)),
    (http.HttpStream, "handle_event", ("event",)),
    (http.HttpStream, "state_errored", None),
    (http.HttpStream, "send_response", ("already_streamed",)),
    (http.HttpStream, "flow_done", ()),
    (http.HttpStream, "passthrough", ("event",)),
    (_http1.Http1Connection, "make_pipe", ()),
    (_http1.Http1Server, "read_headers", ("event",)),
    (_http1.Http1Client, "read_headers", ("event",)),
    (_http1.Http1Connection, "read_body", ("event",)),
    (_http1.Http1Connection, "mark_done", None),
    (_http2.Http2Connection, "_handle_event", ("event",)),
    (_http2.Http2Connection, "protocol_error", ("message", "error_code")),
    (_http2.Http2Connection, "is_closed", ("stream_id",)),
    (_http2.Http2Connection, "is_open_for_us", ("stream_id",)),
    (_http2.Http2Connection, "handle_h2_event", ("event",)),
    (_http2.Http2Connection, "close_connection", ("msg",)),
    (layers.ClientTLSLayer, "receive_handshake_data", ("data",)),
    (layers.ServerTLSLayer, "receive_close", ()),
    (layer.NextLayer, "data_client", ()),
    (AddonManager, "trigger_event", ("event",)),
    (AddonManager, "invoke_addon", ("addon", "event")),
    (server.ConnectionHandler, "handle_connection", ("connection",)),
    (server.ConnectionHandler, "server_event", ("event",)),
    (server.ConnectionHandler, "wakeup", ("request",)),
    (mode_servers.AsyncioServerInstance, "listen", ("host", "port")),
    (mode_servers.ServerInstance, "handle_stream", ("reader", "writer")),
    (server.TimeoutWatchdog, "register_activity", ()),
)
# What the code that we pass through must still do, as it is written there.
_SOURCES: Final[tuple[tuple[Any, str, str], ...]] = (
    (http.HttpLayer, "_handle_event", "self.connections.setdefault(self.context.client"),
    (http.HttpLayer, "event_to_child", "isinstance(command, commands.RequestWakeup)"),
    (http.HttpLayer, "get_connection", "stack /= HttpClient(context)"),
    (http.HttpLayer, "get_connection", "self.waiting_for_establishment[connection].append(event)"),
    (http.HttpLayer, "register_connection", "self.waiting_for_establishment.pop(command.connection)"),
    (http.HttpLayer, "event_to_child", "self.command_sources[command] = child"),
    (_http2.Http2Client, "_handle_event", "self.provisional_max_concurrency"),
    (http.HttpStream, "start_request_stream", "RequestHeaders(self.stream_id, self.flow.request"),
    (http.HttpStream, "state_wait_for_request_headers", "yield HttpRequestHeadersHook(self.flow)"),
    (http.HttpStream, "handle_connect", "yield HttpConnectHook(self.flow)"),
    (http.HttpStream, "make_server_connection", "yield GetHttpConnection("),
    (http.HttpStream, "send_response", "yield from self.flow_done()"),
    (http.HttpStream, "send_response", "ResponseTrailers(self.stream_id, self.flow.response.trailers)"),
    (http.HttpStream, "state_stream_response_body", "self.flow.response.trailers = event.trailers"),
    (http.HttpStream, "flow_done", "self._handle_event = self.passthrough"),
    (_http1.Http1Connection, "mark_done", "if should_make_pipe(self.request, self.response):"),
    (_http1.Http1Connection, "mark_done", "self.request_done = self.response_done = False"),
    (_http1.Http1Connection, "mark_done", "self.request = self.response = None"),
    (_http1.Http1Connection, "mark_done", "self.state = self.read_headers"),
    (_http1.Http1Server, "read_headers", "self.body_reader = make_body_reader("),
    (_http1.Http1Client, "read_headers", "response_head = self.buf.maybe_extract_lines()"),
    (_http1.Http1Client, "read_headers", "self.body_reader = make_body_reader("),
    (_http1.Http1Connection, "read_body", "h11_event = self.body_reader(self.buf)"),
    (Http10Reader, "read_eof", "return EndOfMessage()"),
    (ChunkedReader, "__call__", "chunk_header = buf.maybe_extract_next_line()"),
    (_http2.Http2Client, "__init__", "self.our_stream_id = {}"),
    (_http2.Http2Client, "__init__", "self.their_stream_id = {}"),
    (_http2.Http2Client, "__init__", "self.stream_queue = "),
    (_http2.Http2Connection, "__init__", "self.h2_conn = "),
    (_http2.Http2Connection, "__init__", "self.streams = {}"),
    (_http2.Http2Connection, "_handle_event", "self.h2_conn.send_trailers(event.stream_id, trailers)"),
    (_http2.Http2Connection, "close_connection", "self._handle_event = self.done"),
    (_http2.Http2Connection, "handle_h2_event", "if event.stream_id in self.streams:"),
    (_http_h2.BufferedH2Connection, "__init__", "self.stream_buffers = "),
    (_http_h2.BufferedH2Connection, "__init__", "self.stream_trailers = {}"),
    (_http_h2.BufferedH2Connection, "connection_window_updated", "self.stream_buffers.pop("),
    (_http_h2.BufferedH2Connection, "send_data", "self.stream_buffers[stream_id].append(SendH2Data("),
    (_http_h2.BufferedH2Connection, "send_data", "available_window = self.local_flow_control_window("),
    (_http_h2.BufferedH2Connection, "stream_window_updated", "self.stream_buffers[stream_id].popleft()"),
    (_http_h2.BufferedH2Connection, "stream_window_updated", "self.stream_buffers[stream_id].appendleft("),
    (H2Connection, "send_data", "frame_size > self.local_flow_control_window(stream_id)"),
    (H2Connection, "__init__", "self.incoming_buffer = "),
    (H2Connection, "__init__", "GoAwayFrame: self._receive_goaway_frame"),
    (H2Connection, "_receive_frame", "frames, events = self._frame_dispatch_table[frame.__class__](frame)"),
    (H2Connection, "__init__", "self.decoder = "),
    (H2Connection, "__init__", "self.encoder = "),
    (type(H2Connection().decoder), "decode", "inflated_size > self.max_header_list_size"),
    (FrameBuffer, "__init__", "self._data = "),
    (layer.Layer, "__init__", "self._paused = None"),
    (layer.Layer, "__init__", "self._paused_event_queue = "),
    (layer.Layer, "__init__", "self.context.layers.append(self)"),
    (server.ConnectionHandler, "__init__", "self.transports = {}"),
    (server.ConnectionHandler, "__init__", "self.timeout_watchdog = "),
    (server.TimeoutWatchdog, "register_activity", "self.last_activity = time.time()"),
    (server.ConnectionHandler, "__init__", "self.max_conns = "),
    (server.ConnectionHandler, "open_connection", "async with self.max_conns[command.connection.address]:"),
    (server.ConnectionHandler, "open_connection", "ServerConnectHook(hook_data)"),
    (server.ConnectionHandler, "open_connection", "await asyncio.open_connection("),
    (server.ConnectionHandler, "handle_connection", "reader = self.transports[connection].reader"),
    (server.ConnectionHandler, "handle_connection", "connection.state = ConnectionState.CLOSED"),
    (layers.ServerTLSLayer, "receive_close", "self.tls.get_shutdown() & SSL.RECEIVED_SHUTDOWN"),
    (Server, "__setattr__", "address"),
    (tlsconfig.TlsConfig, "tls_start_client", "if tls_start.ssl_conn is not None"),
    (tlsconfig.TlsConfig, "tls_start_server", "if tls_start.ssl_conn is not None"),
    (tlsconfig.TlsConfig, "tls_start_server", "if not server.alpn_offers:"),
    (tlsconfig.TlsConfig, "tls_start_server", "tls_start.ssl_conn = SSL.Connection(ssl_ctx)"),
    (http.HttpLayer, "get_connection", "event.connection_spec_matches(connection)"),
    (tlsconfig.TlsConfig, "tls_start_client", "_default_ciphers("),
    (tlsconfig.TlsConfig, "tls_start_client", "net_tls.create_client_proxy_context("),
    (tlsconfig.TlsConfig, "tls_start_client", "alpn_select_callback=alpn_select_callback"),
    (mode_servers.AsyncioServerInstance, "_start", "self._servers = await self.listen(host, port)"),
    (proxyserver.Servers, "__init__", "self._instances"),
    (Master, "run", "asyncio_utils.set_eager_task_factory()"),
)


def unknown() -> Iterator[str]:
    """Yield what is not as it was when this was written and tested, as sentences."""
    if why := unsupported_mitmproxy(version.VERSION):
        yield f"presign: {why}"
        return
    for owner, name, parameters in _METHODS:
        method = getattr(owner, name, None)
        found = tuple(inspect.signature(method).parameters)[1:] if method else None
        if found is None or (parameters is not None and found != parameters):
            yield _has_changed(f"{owner.__name__}.{name}")
    for owner, name, text in _SOURCES:
        if text not in _source(getattr(owner, name, None)):
            yield _has_changed(f"{owner.__name__}.{name}")


def _source(function: Any) -> str:
    """Return the source of a function; empty where it is gone or cannot be read."""
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return ""


def _has_changed(what: str) -> str:
    return (
        f"presign: mitmproxy {version.VERSION} has changed {what}, which the gateway leans on: "
        f"use a version that it was tested with: {INSTALL_MITMPROXY}"
    )
