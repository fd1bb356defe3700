"""An upstream that speaks gRPC, as the library `grpcio` does: all kinds of calls; messages are bytes."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc
import trustme

from support.lab import REAL_SECRET

SERVICE = "lab.v1.Lab"
DETAILS = b"\x08\x03\x12\x0bnot so many\xff\x00"
"""A status in binary, as google.rpc.Status is: the bytes matter to no one here."""
MAX_MESSAGE = 32 * 1024 * 1024
_Metadata = Sequence[tuple[str, str | bytes]]


def path(name: str) -> str:
    """The path of a call, as it is signed and sent."""
    return f"/{SERVICE}/{name}"


class GrpcServer:
    """Serves those that bring the real credential. Keeps the metadata of all calls, and what came of them."""

    def __init__(self, cert: trustme.LeafCert | None = None, options: Sequence[tuple[str, Any]] = ()) -> None:
        self.calls: list[tuple[str, dict[str, str | bytes]]] = []
        self.ended: list[str] = []
        """The names of calls that their client has cancelled, or whose deadline has passed."""
        self.received: list[bytes] = []
        self.go_on = threading.Event()
        """Set by a test, so that a stream that waits goes on."""
        sizes = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
        self._server = grpc.server(ThreadPoolExecutor(32), options=(*sizes, *options))
        self._server.add_generic_rpc_handlers((_Handlers(self),))
        if cert is None:
            self.port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            chain = b"".join(pem.bytes() for pem in cert.cert_chain_pems)
            credentials = grpc.ssl_server_credentials([(cert.private_key_pem.bytes(), chain)])
            self.port = self._server.add_secure_port("127.0.0.1:0", credentials)

    def clear(self) -> None:
        self.calls.clear()
        self.ended.clear()
        self.received.clear()
        self.go_on.clear()

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._server.stop(0).wait(5)

    # -- calls ----------------------------------------------------------------------------------------

    def let_in(self, name: str, context: grpc.ServicerContext) -> None:
        found = {str(key): value for key, value in context.invocation_metadata() or ()}
        self.calls.append((name, found))
        if found.get("authorization") != f"Bearer {REAL_SECRET}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
        context.add_callback(lambda: None if context.code() else self.ended.append(name))

    def echo(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        """Unary: the same message, with metadata before and behind it."""
        context.send_initial_metadata((("x-lab", "before"), ("set-cookie", "a=b")))
        context.set_trailing_metadata(
            (("x-lab-cost", "7"), ("x-lab-bin", b"\x00\xff"), ("set-cookie", "c=d"), ("x-presign-uses", "1"))
        )
        return message

    def size(self, messages: Iterator[bytes], _: grpc.ServicerContext) -> bytes:
        """Client streaming: how many messages, and how many bytes."""
        sizes = []
        for message in messages:
            self.received.append(message)
            sizes.append(len(message))
        return f"{len(sizes)} {sum(sizes)}".encode()

    def count(self, message: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
        """Server streaming: one number, and the rest once the test says so."""
        yield b"0"
        self.go_on.wait(20)
        for number in range(1, int(message)):
            yield b"%d" % number

    def talk(self, messages: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        """Bidirectional: each message as it comes."""
        for message in messages:
            yield message.upper()

    def fail(self, _: bytes, context: grpc.ServicerContext) -> bytes:
        """A status with details, in place of an answer: trailers only."""
        context.set_trailing_metadata((("grpc-status-details-bin", DETAILS),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "not so many: 100% übel\n")
        raise AssertionError

    def fail_late(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """A status behind a message."""
        yield message
        context.set_trailing_metadata((("grpc-status-details-bin", DETAILS),))
        context.abort(grpc.StatusCode.DATA_LOSS, "lost")

    def leak(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """The credential in every trailer there is, behind a message or without one."""
        if message:
            yield message
        wrapped = b"\x08\x10\x12" + bytes((len(REAL_SECRET),)) + REAL_SECRET.encode() + b"!"
        context.set_trailing_metadata(
            (
                ("grpc-status-details-bin", wrapped),
                ("x-lab-echo", f"Bearer {REAL_SECRET}"),
                ("x-lab-echo-bin", b"?" + REAL_SECRET.encode()),
            )
        )
        context.abort(grpc.StatusCode.PERMISSION_DENIED, f"not with {REAL_SECRET}, 100%")

    def wait(self, _: bytes, context: grpc.ServicerContext) -> bytes:
        """Nothing, until its client has had enough."""
        while context.is_active():
            time.sleep(0.01)
        return b""


_KINDS = {
    "Echo": (grpc.unary_unary_rpc_method_handler, "echo"),
    "Size": (grpc.stream_unary_rpc_method_handler, "size"),
    "Count": (grpc.unary_stream_rpc_method_handler, "count"),
    "Talk": (grpc.stream_stream_rpc_method_handler, "talk"),
    "Fail": (grpc.unary_unary_rpc_method_handler, "fail"),
    "FailLate": (grpc.unary_stream_rpc_method_handler, "fail_late"),
    "Leak": (grpc.unary_stream_rpc_method_handler, "leak"),
    "Wait": (grpc.unary_unary_rpc_method_handler, "wait"),
}


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, server: GrpcServer) -> None:
        self._server = server

    def service(self, handler_call_details: Any) -> Any:
        name = handler_call_details.method.rpartition("/")[2]
        if name not in _KINDS or handler_call_details.method != path(name):
            return None
        kind, method = _KINDS[name]
        return kind(_guarded(self._server, name, getattr(self._server, method)))


def _guarded(server: GrpcServer, name: str, method: Any) -> Any:
    def called(request: Any, context: grpc.ServicerContext) -> Any:
        server.let_in(name, context)
        return method(request, context)

    return called


class Stub:
    """The calls of the service over one channel."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.echo = channel.unary_unary(path("Echo"))
        self.size = channel.stream_unary(path("Size"))
        self.count = channel.unary_stream(path("Count"))
        self.talk = channel.stream_stream(path("Talk"))
        self.fail = channel.unary_unary(path("Fail"))
        self.fail_late = channel.unary_stream(path("FailLate"))
        self.leak = channel.unary_stream(path("Leak"))
        self.wait = channel.unary_unary(path("Wait"))
