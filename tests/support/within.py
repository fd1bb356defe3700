"""A gateway within the process of the tests: a thread with an event loop of its own, and all else as ever.

For `tools/mutate`, which changes code in the process that runs the tests. Its options, configuration, sockets
and log are those of a process of its own. It has the addons of `presign serve` and no others, signals are
not led to it, and while a test starts another one, that one is the only one.
"""

import asyncio
import contextlib
import logging
import os
import runpy
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import pytest
from mitmproxy import ctx
from mitmproxy.addons import disable_h2c, next_layer, proxyserver, script, tlsconfig
from mitmproxy.master import Master
from mitmproxy.options import Options

from presign_proxy.mitm.addon import PresignAddon
from support.process import STARTING, StartFailed, resident
from support.proxy import FAKE_DNS, SCRIPT, DnsAnswers, Mitm


class _Loop(asyncio.SelectorEventLoop):
    """Signals reach the main thread only."""

    def add_signal_handler(self, sig: int, callback: Callable[..., Any], *args: Any) -> None: ...

    def remove_signal_handler(self, sig: int) -> bool:
        return False


class _Log(logging.Handler):
    """What mitmdump would print of its log, in a file."""

    def __init__(self, path: Path) -> None:
        super().__init__(logging.INFO)
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=self._file)

    def close(self) -> None:
        self._file.close()
        super().close()


class Within(Mitm):
    """One that ends with `stop`."""

    _thread: threading.Thread | None = None
    _master: Any = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._around = pytest.MonkeyPatch()

    @property
    def pid(self) -> int:
        raise RuntimeError("no process of its own: whoever stops or kills it would do so to the tests")

    def rss(self) -> int:
        return resident(os.getpid())

    def start(self, timeout: float = STARTING) -> Self:
        self._surround()
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + timeout
        while self._thread.is_alive() and time.monotonic() < deadline:
            if self._serves():
                if "is not usable" in self.log():
                    break
                return self
            time.sleep(0.005)
        self.stop()
        raise StartFailed(self.log(), 1)

    def stop(self, timeout: float = 5.0) -> int | None:
        thread, self._thread = self._thread, None
        if thread is None:
            return None
        if self._master is not None and thread.is_alive():
            with contextlib.suppress(RuntimeError):
                self._master.shutdown()
        thread.join(timeout)
        self._around.undo()
        return 0

    def _environment(self, extra: Mapping[str, str], dns: DnsAnswers) -> dict[str, str]:
        self._extra, self._names = dict(extra), {name: list(found) for name, found in dns.items()}
        return super()._environment(extra, dns)

    def _surround(self) -> None:
        """What a process of its own would have around it, as long as it is there."""
        for name, value in self._extra.items():
            self._around.setenv(name, value)
        if self._names:
            resolver = runpy.run_path(str(FAKE_DNS / "sitecustomize.py"))["FakeDns"]
            self._around.setattr(socket, "getaddrinfo", resolver(self._names, self._dns_log).getaddrinfo)

    def _run(self) -> None:
        with self._logged(), _alone(), asyncio.Runner(loop_factory=_Loop) as runner:
            runner.run(self._serve())

    @contextlib.contextmanager
    def _logged(self) -> Iterator[None]:
        root, factory = logging.getLogger(), logging.getLogRecordFactory()
        level, log = root.level, _Log(self.log_path)
        root.addHandler(log)
        root.setLevel(logging.INFO)
        try:
            yield
        finally:
            root.removeHandler(log)
            root.setLevel(level)
            logging.setLogRecordFactory(factory)
            log.close()

    async def _serve(self) -> None:
        options = Options()
        # All make one authority together: that takes longer than all else.
        given = self._given() | {"confdir": self._confdir()}
        self.ca = Path(given["confdir"]) / self.ca.name
        options.set(*(f"{name}={value}" for name, value in given.items()), defer=True)
        self._master = master = Master(options, with_termlog=False)
        master.addons.add(disable_h2c.DisableH2C(), proxyserver.Proxyserver())
        master.addons.add(next_layer.NextLayer(), tlsconfig.TlsConfig(), script.ScriptLoader())
        if self.config is not None:
            master.addons.add(PresignAddon())
        options.update(scripts=self._scripts())
        await master.run()

    def _confdir(self) -> str:
        shared = Path(os.environ["PRESIGN_WITHIN"])
        return str(shared if shared.is_dir() else self.directory.parent / "confdir")

    def _given(self) -> dict[str, str]:
        """Options by name, of `--name value` as of `--set name=value`."""
        found = {}
        for name, value in zip(self.argv[1::2], self.argv[2::2], strict=True):
            if name == "--set":
                name, _, value = value.partition("=")
            elif not name.startswith("--"):
                continue
            found[name.removeprefix("--").replace("-", "_")] = value
        return found

    def _scripts(self) -> list[str]:
        """Those besides our own."""
        named = zip(self.argv[1::2], self.argv[2::2], strict=True)
        return [value for name, value in named if name == "-s" and value != str(SCRIPT)]


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """What mitmproxy has one of is this gateway's, and then that of the one before again."""
    before = vars(ctx).get("master"), vars(ctx).get("options")
    try:
        yield
    finally:
        ctx.master, ctx.options = before  # type: ignore[assignment]
