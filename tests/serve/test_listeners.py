"""Where the gateway listens: what may be written, what is bound, and what is said where that fails."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import os
import socket
from collections.abc import Iterator

import pytest

from presign_proxy.serve import listeners
from presign_proxy.serve.listeners import ListenError, bind, close, handed_over, parse_address, reason
from support.descriptors import descriptors
from support.machine import needs_ipv6

V4 = "127.0.0.1"


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server((V4, 0)) as sock:
        yield int(sock.getsockname()[1])


@pytest.mark.parametrize(("text", "expected"), [
    ("127.0.0.1:8080", (V4, 8080)), ("[::1]:8080", ("::1", 8080)), ("*:8080", ("", 8080)),
    (":8080", ("", 8080)),
    ("api_1.example-x.test:0", ("api_1.example-x.test", 0)), ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1)),
    ("[::ffff:1.2.3.4]:65535", ("::ffff:1.2.3.4", 65535)), ("localhost:65534", ("localhost", 65534)),
    ("X.test:80", ("X.test", 80)),
])  # fmt: skip
def test_an_address_is_a_host_and_a_port(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", [
    "", "8080", "127.0.0.1", "127.0.0.1:", "::1:8080", "127.0.0.1:65536", "127.0.0.1:99999", "a:b", "a b:80",
    "http://a:80", "127.0.0.1:123456", "127.0.0.1:+80", "127.0.0.1:-1", "[::1:80", "a:80/", "a:80\n", "**:80",
    "a:\N{ARABIC-INDIC DIGIT EIGHT}\N{ARABIC-INDIC DIGIT ZERO}",
])  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be HOST:PORT, such as"):
        parse_address(text)


def test_a_host_is_bound_with_its_address_and_does_not_listen_yet() -> None:
    (one,) = bind(V4, 0)
    host, port = one.getsockname()
    assert (host, one.type, one.gettimeout()) == (V4, socket.SOCK_STREAM, 0.0)
    assert port > 0
    assert one.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
    assert one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0
    assert not os.get_inheritable(one.fileno())
    # One that was bound, and did not listen, is no hindrance: it is who listens that has the port.
    with pytest.raises(OSError):
        socket.create_connection((V4, port), 1)
    close([one])
    assert one.fileno() == -1


def test_a_port_is_bound_again_at_once_after_its_connections_have_ended() -> None:
    (one,) = bind(V4, 0)
    one.listen(1)
    port = one.getsockname()[1]
    with socket.create_connection((V4, port)) as client:
        one.setblocking(True)
        accepted = one.accept()[0]
        close([one])
        accepted.close()  # from now on this side is in TIME_WAIT
        assert client.recv(1) == b""
    (again,) = bind(V4, port)
    again.listen(1)
    close([again])


@needs_ipv6
def test_every_address_gets_a_socket_of_its_own_on_the_same_port() -> None:
    found = bind("", 0)
    families = {one.family: one for one in found}
    assert set(families) == {socket.AF_INET, socket.AF_INET6}
    assert len({one.getsockname()[1] for one in found}) == 1
    assert families[socket.AF_INET6].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
    port = found[0].getsockname()[1]
    assert sorted(listeners.addresses_of(found)) == [f"0.0.0.0:{port}", f"[::]:{port}"]
    close(found)


def test_a_port_that_something_else_has_is_told_and_leaves_nothing_bound(taken: int) -> None:
    before = descriptors()
    with pytest.raises(ListenError, match=f"^cannot listen on {V4}:{taken}: something else does; ") as caught:
        bind(V4, taken)
    assert caught.value.is_taken
    assert descriptors() == before


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a" * 64 + ".test", "\udc80"])
def test_a_host_that_there_is_none_of_is_told(host: str) -> None:
    with pytest.raises(ListenError, match=r"^cannot listen on [^X]+: no such host$") as caught:
        bind(host, 0)
    assert not caught.value.is_taken


def test_an_address_of_another_machine_is_told() -> None:
    before = descriptors()
    with pytest.raises(ListenError, match=r"this machine does not have that address$") as caught:
        bind("198.51.100.7", 0)
    assert not caught.value.is_taken
    assert descriptors() == before


def test_a_family_that_this_machine_does_not_have_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def without(family: int, *rest: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, *rest)

    answers = [(socket.AF_INET6, 1, 6, "", ("::1", 0, 0, 0)), (socket.AF_INET, 1, 6, "", (V4, 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    monkeypatch.setattr(socket, "socket", without)
    (one,) = bind("both.test", 0)
    assert one.family == socket.AF_INET
    close([one])
    answers.pop()
    with pytest.raises(ListenError, match=r"^cannot listen on both\.test: no such address here$"):
        bind("both.test", 0)
    with pytest.raises(ListenError, match=r"^cannot listen on \*: no such address here$"):
        bind("", 0)


def test_a_socket_that_cannot_be_made_at_all_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", full)
    with pytest.raises(ListenError, match=r"too many open files$"):
        bind(V4, 0)


@pytest.mark.parametrize(("number", "said"), [
    (errno.EADDRINUSE, "cannot listen on *:80: something else does; choose another with --listen"),
    (errno.EACCES, "cannot listen on *:80: ports below 1024 are privileged; have systemd open the socket "
                   "(deploy/presign.socket), or choose another with --listen"),
    (errno.EADDRNOTAVAIL, "cannot listen on *:80: this machine does not have that address"),
    (errno.EIO, "cannot listen on *:80: input/output error"),
])  # fmt: skip
def test_why_nothing_can_listen_is_a_sentence(number: int, said: str) -> None:
    assert reason(("", 80), OSError(number, os.strerror(number))) == said
    assert reason((V4, 81, 0, 0), OSError()) == f"cannot listen on {V4}:81: it failed"


# -- sockets that systemd has opened ----------------------------------------------------------------------

KINDS = {"4": (socket.AF_INET, socket.SOCK_STREAM), "6": (socket.AF_INET6, socket.SOCK_STREAM),
         "u": (socket.AF_INET, socket.SOCK_DGRAM), "x": (socket.AF_UNIX, socket.SOCK_STREAM)}  # fmt: skip


@contextlib.contextmanager
def descriptors_from_three(made: list[int]) -> Iterator[None]:
    """These at 3, 4 and so on for a moment; what is there otherwise is put back."""
    places = range(3, 3 + len(made))
    kept = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 60) if is_open(one) else None for one in places]
    try:
        for one, place in zip([fcntl.fcntl(one, fcntl.F_DUPFD, 60) for one in made], places, strict=True):
            os.dup2(one, place)
            os.close(one)
        yield
    finally:
        for one, place in zip(kept, places, strict=True):
            if one is None:
                with contextlib.suppress(OSError):
                    os.close(place)
            else:
                os.dup2(one, place, inheritable=False)
                os.close(one)


def is_open(descriptor: int) -> bool:
    with contextlib.suppress(OSError):
        return os.fstat(descriptor) is not None
    return False


def given(kinds: str, count: str) -> str:
    """What a process finds that systemd has started with these at its descriptors from the third on.

    A process of its own: where several test at a time, one of these descriptors is the channel over which the
    tests are dealt out, and somebody reads from it at any moment.
    """
    reading, writing = os.pipe()
    if not (child := os.fork()):
        try:
            os.write(writing, handed(kinds, count).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as said:
        text = said.read()
    os.waitpid(child, 0)
    return text


def handed(kinds: str, count: str) -> str:
    made = [
        socket.socket(*KINDS[kind]).detach() if kind in KINDS else os.open("/dev/null", os.O_RDONLY)
        for kind in kinds.split(",")
    ]
    with descriptors_from_three(made):
        for one in made:
            if one >= 3 + len(made):
                os.close(one)
        said = asked(count)
        gc.collect()  # of what was refused, before something else has these numbers
        return said


def asked(count: str) -> str:
    try:
        found = handed_over({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count})
    except ListenError as error:
        return str(error)
    return str([(one.fileno(), int(one.family), one.gettimeout(), one.detach())[:3] for one in found])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_what_systemd_has_opened_is_taken_from_the_third_descriptor_on() -> None:
    assert given("4,6,4", "2") == "[(3, 2, 0.0), (4, 10, 0.0)]"
    assert given("4", "1") == "[(3, 2, 0.0)]"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
@pytest.mark.parametrize(("kinds", "said"), [
    ("f", "descriptor 3, passed by systemd, is not a socket"),
    ("4,u", "descriptor 4 is not a TCP socket: use ListenStream= with a port"),
    ("x", "descriptor 3 is not a TCP socket: use ListenStream= with a port"),
])  # fmt: skip
def test_what_is_no_tcp_socket_is_refused(kinds: str, said: str) -> None:
    assert said == given(kinds, str(kinds.count(",") + 1))


@pytest.mark.parametrize("count", ["", "0", "-1", "65", "x", "\N{ARABIC-INDIC DIGIT ONE}", "1.5", " 1"])
def test_a_number_of_sockets_that_is_none_is_refused(count: str) -> None:
    with pytest.raises(ListenError, match=r"^\$LISTEN_FDS is not a number of sockets$"):
        handed_over({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count})
    with pytest.raises(ListenError, match="LISTEN_FDS"):
        handed_over({"LISTEN_PID": str(os.getpid())})


def test_sockets_for_another_process_are_left_alone() -> None:
    assert handed_over({}) == []
    assert handed_over({"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "x"}) == []
    assert handed_over({"LISTEN_FDS": "1"}) == []


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_as_many_as_are_told_are_looked_at_and_no_more_than_64() -> None:
    assert given("4,4,f", "64") == "descriptor 5, passed by systemd, is not a socket"
