"""What people see: mitmdump's output, with one line for a request of ours, or a UI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mitmproxy.addons.dumper import Dumper
from mitmproxy.flow import Flow

from ..observe.log_redaction import Redaction
from ..observe.terminal import Terminal
from .flow.state import FlowStates
from .lane.availability import shows_flows


class QuietDumper(Dumper):
    """mitmproxy's dumper, but for flows that have a line of ours."""

    has_line: Callable[[Flow], bool]

    def match(self, f: Flow) -> bool:
        return not self.has_line(f) and bool(super().match(f))  # type: ignore[no-untyped-call]


def attend(master: Any, terminal: Terminal, states: FlowStates) -> None:
    """Print lines, and keep bodies to be shown, as the program and its options ask for.

    mitmdump's usual output (`flow_detail` 1) has one line for each request of ours. With more detail, or a
    filter, mitmproxy prints flows at length, and only a request without a flow gets a line. `mitmdump -q`
    has `flow_detail` 0. mitmproxy and mitmweb have no dumper, and show flows instead.
    """
    states.shows_bodies = shows_flows(master)
    dumper, options = master.addons.get("dumper"), master.options
    detail = options.flow_detail if "flow_detail" in options else 0
    if not isinstance(dumper, Dumper) or not detail:
        terminal.echo, terminal.flows = None, False
        return
    if type(dumper) is Dumper:
        dumper.__class__ = QuietDumper
    terminal.flows = detail == 1 and not options.dumper_filter and isinstance(dumper, QuietDumper)
    if isinstance(dumper, QuietDumper):
        dumper.has_line = lambda flow: terminal.flows and states.is_logged(flow)
    terminal.echo = lambda line: _print(dumper, line)


def _print(dumper: Dumper, line: str) -> None:
    dumper.echo(Redaction.redact(line))
    dumper.outfp.flush()
