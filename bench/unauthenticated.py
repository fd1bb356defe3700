"""What bytes that nobody signed cost, function by function, at 1, 4, 16 and 60 KiB.

The heads are those of `tests/support/adverse.py`: every unit, repeated, in every place. Of each function the
dearest is printed, with its time at each size, what the four times as large one costs over the one before
(4 is linear), and nanoseconds for a byte at the largest.

Run: .venv/bin/python bench/unauthenticated.py [--all]
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "addon"), str(ROOT / "tests")]

from presign_proxy.core.redact import redact  # noqa: E402
from presign_proxy.core.registry import Registry  # noqa: E402
from presign_proxy.errors import Denied  # noqa: E402
from presign_proxy.http import client_address, field_names, paths, percent, query  # noqa: E402 - the path is set above
from presign_proxy.http.message import head_of, is_sound  # noqa: E402
from presign_proxy.mitm.flow import hpack_fields, http2_excess  # noqa: E402 - the path is set above
from presign_proxy.mitm.lane import request_head  # noqa: E402
from presign_proxy.observe.log_redaction import Redaction  # noqa: E402
from presign_proxy.signing import tokens  # noqa: E402 - the path is set above
from support.adverse import PLACES, SIZES, UNITS, repeated  # noqa: E402
from support.deciding import ask, connection, project, registry  # noqa: E402

TRUSTED = (ip_network("203.0.113.0/24"),)
FEW = frozenset((b"sig", b"exp"))
Call = Callable[[bytes], Any]


def known() -> Registry:
    found = registry(connection(), project(intercept=True))
    return Registry(found.connections, found.hosts, trusted_proxies=TRUSTED)


def functions() -> dict[str, Call]:
    """Everything that runs before a MAC or on a refusal, given a text of any size."""
    rules = known()
    found: dict[str, Call] = {
        "percent.decode": percent.decode,
        "percent.decodings": percent.decodings,
        "names.fold": field_names.fold,
        "names.header_key": field_names.header_key,
        "query.form_decode": query.form_decode,
        "query.hides": lambda text: query.hides(text, b"x-presign"),
        "query.has_param": lambda text: query.has_param(text, FEW),
        "tokens.holds_token": tokens.holds_token,
        "tokens.parse_token": lambda text: tokens.parse_token(b"ps1_" + text + b"." + b"0" * 64),
        "paths.canonical_path": lambda text: paths.canonical_path(b"/" + text),
        "rewrite.redact, a path": lambda text: redact(b"/" + text, ()),
        "rewrite.redact, a field": lambda text: redact(b"/", ((b"x", text),)),
        "rewrite.redact, a name": lambda text: redact(b"/", ((text, b"x"),)),
        "redaction of a log line": lambda text: Redaction.redact(text.decode("latin-1")),
        "clients.client_address": lambda text: client_address.client_address(
            "203.0.113.9", ((b"X-Forwarded-For", text),), TRUSTED
        ),
        "lane.heads.parse, a target": lambda text: request_head.parse(
            b"GET /" + text + b" HTTP/1.1\r\nHost: x\r\n\r\n"
        ),
        "lane.heads.parse, Connection": lambda text: request_head.parse(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: " + text + b"\r\n\r\n"
        ),
        "lane.heads.may_begin": lambda text: request_head.may_begin(b"GET /" + text),
        "hpack_fields.count_fields": hpack_fields.count_fields,
    }
    for place, made in PLACES.items():
        found[f"decide and refuse: {place}"] = lambda text, made=made: _refuse(made(text), rules)
    return found


def _refuse(asked: Any, rules: Registry) -> None:
    asked = asked._replace(client="203.0.113.9")
    head_of(asked)
    ask(asked, rules)
    is_sound(asked)
    redact(asked.target, asked.fields)


def took(call: Call, text: bytes) -> float:
    """CPU time of one call, the least of three."""
    found = []
    for _ in range(3):
        started = time.process_time()
        with contextlib.suppress(Denied, http2_excess.Excess):
            call(text)
        found.append(time.process_time() - started)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--all", action="store_true", help="every unit, not only the dearest")
    every = parser.parse_args().all
    sizes = " ".join(f"{size // 1024:8}" for size in SIZES)
    print(f"{'µs at KiB of':44} {'':26} {sizes}   each over the last   ns a byte")
    for name, call in functions().items():
        rows = {unit: [took(call, repeated(unit, size)) for size in SIZES] for unit in UNITS}
        dearest = sorted(rows, key=lambda unit: rows[unit][-1], reverse=True)
        for unit in dearest if every else dearest[:1]:
            times = rows[unit]
            ratios = [b / a if a > 20e-6 else 0.0 for a, b in pairwise(times)]
            told = " ".join(f"{ratio:5.1f}" if ratio else "    –" for ratio in ratios)
            print(
                f"{name:44} {unit!r:26} "
                + " ".join(f"{one * 1e6:8.0f}" for one in times)
                + f"   {told:20} {times[-1] / SIZES[-1] * 1e9:8.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
