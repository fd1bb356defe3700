"""Real processes for every test: recording upstreams, and gateways that are stopped again."""

import gc
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme

from support.answers import BEHAVIOURS
from support.apis import ANSWERS, CA_VARIABLES, NAMES, connections
from support.byhand import ByHand
from support.config import write_config
from support.gateways import TLS_NAMES, MakeGateway
from support.lab import lab_config, lab_dns
from support.lanes import LaneLab, lane_lab
from support.longest_first import LONGEST_FIRST
from support.places import TESTS
from support.programs import closing_lines, needs
from support.proxy import DnsAnswers, Mitm
from support.recorder import Recorder
from support.serving import Serve

# What a client reads of the environment, and a developer's own shell may hold.
CLIENT_VARIABLES = ("OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_", "AWS_", "GITHUB_", "GH_", "GIT_", "NODE_")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*programs): skipped without these of support/programs.py")
    # Tests start hundreds of processes. With this set, each would compile all of mitmproxy anew: two seconds.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: at the end, no process waits long for another one."""
    files = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: files.get(item.path.relative_to(TESTS).as_posix(), len(files)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture of the test starts something."""
    for mark in item.iter_markers("needs"):
        needs(*mark.args)


def pytest_collection_finish() -> None:
    """Ten thousand tests need not be looked through again at each collection of garbage: half a second."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """The last lines of a run, below pytest's own: what was not tested, and how it would be."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # a worker of xdist: its reports go to the one that started it
        return
    skipped = [report.longrepr[-1] for report in reporter.stats.get("skipped", ())]
    for line in closing_lines(skipped):
        reporter.write_line(line)


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    """The authority of every TLS upstream here."""
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_pem(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificate of `ca` in a file, as `ssl_verify_upstream_trusted_ca` wants it."""
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="module")
def hand() -> Iterator[ByHand]:
    """An upstream that a test plays itself, shared by those of a file."""
    upstream = ByHand()
    yield upstream
    upstream.stop()


@pytest.fixture(scope="session")
def _recorders() -> list[Recorder]:
    """The session's recorders, to be emptied before each test."""
    return []


@pytest.fixture(autouse=True)
def _clean_recorders(_recorders: list[Recorder]) -> None:
    for recorder in _recorders:
        recorder.clear()


@pytest.fixture(scope="session")
def upstream(_recorders: list[Recorder]) -> Iterator[Recorder]:
    """A recording upstream over plain HTTP."""
    recorder = Recorder().start()
    _recorders.append(recorder)
    yield recorder
    recorder.stop()


@pytest.fixture(scope="module")
def h2_upstream(ca: trustme.CA, _recorders: list[Recorder]) -> Iterator[Recorder]:
    """A recording upstream over TLS that offers HTTP/2 too, for the names of TLS_NAMES."""
    recorder = Recorder(ca.issue_cert(*TLS_NAMES), alpn=("h2", "http/1.1")).start()
    _recorders.append(recorder)
    yield recorder
    _recorders.remove(recorder)
    recorder.stop()


@pytest.fixture(scope="session")
def tls_upstream(ca: trustme.CA, _recorders: list[Recorder]) -> Iterator[Recorder]:
    """A recording upstream over TLS (HTTP/1.1), for the names of TLS_NAMES; it has a plain port too."""
    recorder = Recorder(ca.issue_cert(*TLS_NAMES)).start()
    _recorders.append(recorder)
    yield recorder
    recorder.stop()


@pytest.fixture
def make_recorder() -> Iterator[Callable[..., Recorder]]:
    """Starts recorders with arguments of `Recorder`, and stops them after the test."""
    with ExitStack() as started:

        def make(**options: Any) -> Recorder:
            recorder = Recorder(**options).start()
            started.callback(recorder.stop)
            return recorder

        yield make


@pytest.fixture
def make_gateway(tmp_path_factory: pytest.TempPathFactory, ca_pem: Path) -> Iterator[MakeGateway]:
    """Gateways for one test."""
    yield from _gateways(tmp_path_factory, ca_pem)


@pytest.fixture(scope="module")
def module_gateway(tmp_path_factory: pytest.TempPathFactory, ca_pem: Path) -> Iterator[MakeGateway]:
    """Gateways for all tests of one file: starting one costs more than a second."""
    yield from _gateways(tmp_path_factory, ca_pem)


@pytest.fixture(scope="module")
def module_lab(module_gateway: MakeGateway) -> Iterator[LaneLab]:
    """A gateway that opens its lane, in front of an upstream that a test plays."""
    with lane_lab(module_gateway) as made:
        yield made


@pytest.fixture
def lab(module_lab: LaneLab) -> Iterator[LaneLab]:
    """The same for one test, which leaves nothing behind."""
    with module_lab.checked() as checked:
        yield checked


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory, ca_pem: Path, upstream: Recorder) -> Iterator[Mitm]:
    """The gateway of `support.lab`, shared by the session: do not change it."""
    gateways = _gateways(tmp_path_factory, ca_pem)
    yield next(gateways)(lab_config(upstream.port), dns=lab_dns(upstream.port))
    gateways.close()


@pytest.fixture(scope="module")
def api(ca: trustme.CA, _recorders: list[Recorder]) -> Iterator[Recorder]:
    """All the APIs of `support.apis`, under their real names, as far as a client can tell."""
    recorder = Recorder(ca.issue_cert(*NAMES)).start()
    _recorders.append(recorder)
    with pytest.MonkeyPatch.context() as patch:
        for segment, behaviour in ANSWERS.items():
            patch.setitem(BEHAVIOURS, segment, behaviour)
        yield recorder
    _recorders.remove(recorder)
    recorder.stop()


@pytest.fixture(scope="module")
def proxy(module_gateway: MakeGateway, api: Recorder) -> Mitm:
    """Leads each real name to the recorder; `presign.local` resolves nowhere."""
    dns = {name: [f"127.0.0.1#{api.tls_port}"] for name in NAMES}
    return module_gateway({"connections": connections()}, dns=dns)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, proxy: Mitm) -> None:
    """Of the environment, a client here sees what its test puts there, and the gateway's CA."""
    for name in os.environ:
        if name.lower().endswith("_proxy") or name.startswith(CLIENT_VARIABLES):
            monkeypatch.delenv(name)
    for name in CA_VARIABLES:
        monkeypatch.setenv(name, str(proxy.ca))


def _gateways(tmp_path_factory: pytest.TempPathFactory, ca_pem: Path) -> Generator[MakeGateway]:
    with ExitStack() as started:

        def make(
            config: dict[str, Any] | Path | None,
            *args: str,
            env: dict[str, str] | None = None,
            dns: DnsAnswers | None = None,
            binary: str = "mitmdump",
            start: bool = True,
        ) -> Mitm:
            directory = tmp_path_factory.mktemp("gateway")
            path = write_config(config, directory) if isinstance(config, dict) else config
            trust = ("--set", f"ssl_verify_upstream_trusted_ca={ca_pem}")
            kind = _kind()
            mitm = kind(directory, path, *trust, *args, env=env, dns=dns, binary=binary)
            started.callback(mitm.stop)
            return mitm.start() if start else mitm

        yield make


def _kind() -> type[Mitm]:
    """Where the code is changed in the process that runs the tests, the gateway is in it too."""
    if "PRESIGN_WITHIN" not in os.environ:
        return Mitm
    from support.within import Within

    return Within


@pytest.fixture(scope="module")
def make_served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Serve]]:
    """Starts `presign serve`; all that was started ends with the module."""
    with ExitStack() as started:

        def make(config: dict[str, Any], *args: str, start: bool = True, **options: Any) -> Serve:
            found = Serve(tmp_path_factory.mktemp("served"), config, *args, **options)
            started.callback(found.stop)
            return found.start() if start else found

        yield make
