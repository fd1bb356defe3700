"""Does the time of a refusal tell why it is refused?

Somebody without a signing secret must not learn whether a connection exists, how many keys it has, whether it
is disabled, or anything of a signature but that it is wrong.

Requests of each class are decided on in turn, in random order, each timed on its own. The slowest tenth of
all samples together is cut off everywhere, as dudect does: it belongs to the machine. Welch's t
then compares each class with its first; beyond ±4.5, two means differ for sure. Two classes are there twice,
under another name: their t shows what the method makes of equals.

The samples come from a hundred processes with other names, keys and addresses in each. Within one, where an
object happens to lie makes a difference of some 50 ns either way, also between equals: that is a property of
the process, which nobody outside knows, and not of the code.

Run: .venv/bin/python bench/timing.py [SAMPLES]
(of each class, 100,000 by default; exit code 1 over the bound)
"""

from __future__ import annotations

import array
import gc
import itertools
import random
import statistics
import string
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1] / "addon"))

from presign_proxy.core.connection import Connection, SourceRules, Upstream
from presign_proxy.core.credentials import bearer
from presign_proxy.core.decide import decide
from presign_proxy.core.decision import Deny, Forward
from presign_proxy.core.registry import Registry
from presign_proxy.http.message import Origin, Request
from presign_proxy.signing.keys import KeyRing, SigningKey
from presign_proxy.signing.secret import Secret
from presign_proxy.signing.signer import Signer

BOUND: Final = 4.5
NOW: Final = 1_800_000_000
VARIANTS: Final = 64
"""Different requests of each class, so that none is known by heart."""
WARM_UP: Final = 200
KEPT: Final = 0.9
BLOCKS: Final = 100
"""Processes."""
# None is asked for more often than another: what is asked for more often is faster.
_CAST: Final = ("plain", "twin", "third", "unknown", "4keys", "off", "revoked", "before", "nobody")
_PROJECTS: Final = ("project", "other_project", "unknown_project")
NAMES: Final = {what: "".join(random.choices(string.ascii_lowercase, k=12)) for what in _CAST + _PROJECTS}
"""Ids, new in each process."""


@dataclass
class Class:
    """Requests that must not be told from those of `like`."""

    name: str
    like: str | None
    requests: list[Request]


def secret(number: int) -> str:
    return f"sk_{number:032d}"


def connection(name: str, first: int, keys: int = 1, **changes: bool) -> Connection:
    plain = Connection(
        id=name,
        upstream=Upstream(Origin("https", "api.example.com", 443)),
        injector=bearer(Secret("sk-real-0123456789")),
        keys=KeyRing(tuple(SigningKey(f"k{n}", Secret(secret(first + n))) for n in range(keys))),
    )
    return replace(plain, **changes)


def project(name: str, first: int) -> Connection:
    origins = (Origin("https", "cdn.acme.com", 443),)
    rules = SourceRules(origins=origins, formats=frozenset({"png"}))
    return Connection(id=name, source=rules, keys=KeyRing((SigningKey("k", Secret(secret(first))),)))


def registry() -> Registry:
    known = [
        connection(NAMES["plain"], 0),
        connection(NAMES["twin"], 10),
        connection(NAMES["third"], 15),
        connection(NAMES["4keys"], 20, keys=4),
        connection(NAMES["off"], 30, enabled=False),
        connection(NAMES["revoked"], 40, revoked=True),
        connection(NAMES["before"], 70, keys=4),
        project(NAMES["project"], 50),
        project(NAMES["other_project"], 60),
    ]
    random.shuffle(known)
    return Registry({one.id: one for one in known}, frozenset({"presign.local"}))


def asked(target: str) -> Request:
    fields = ((b"Host", b"presign.local"), (b"Accept", b"application/json"))
    origin = Origin("http", "presign.local", 80)
    return Request(b"GET", target.encode(), fields, b"HTTP/1.1", origin, (("host", "presign.local"),))


def presigned(name: str, signed_with: str | None = None, key: int = 99) -> list[Request]:
    """Signed by a key that the connection does not have, or for another connection."""
    found = []
    for number in range(VARIANTS):
        signer = Signer(signed_with or name, secret(key))
        grant = signer.sign(["GET"], ["v1/*"], expires_at=NOW + 1000 + number)
        url = grant.url("v1/models", "http://presign.local").removeprefix("http://presign.local")
        found.append(asked(url.replace(f"/{signed_with}/", f"/{name}/") if signed_with else url))
    return found


def source(name: str) -> list[Request]:
    target = "aHR0cHM6Ly9jZG4uYWNtZS5jb20vaGVyby5wbmc.png"
    digits = random.Random(name)
    return [
        asked(f"/v1/{name}/{target}?sig={digits.getrandbits(256):064x}&exp={NOW + 1000 + number}")
        for number in range(VARIANTS)
    ]


def classes() -> list[Class]:
    base, of_source = "a wrong signature", "a wrong signature, source"
    n = NAMES
    return [
        Class(base, None, presigned(n["plain"])),
        Class("the same, of another connection", base, presigned(n["twin"])),
        Class("an unknown connection", base, presigned(n["unknown"])),
        Class("a signature of another connection", base, presigned(n["third"], n["twin"], 10)),
        Class("a connection with four keys", base, presigned(n["4keys"])),
        Class("a disabled connection", base, presigned(n["off"])),
        Class("a revoked connection", base, presigned(n["revoked"])),
        Class("a project, as a connection", base, presigned(n["project"])),
        Class(of_source, None, source(n["project"])),
        Class("the same, of another project", of_source, source(n["other_project"])),
        Class("an unknown project", of_source, source(n["unknown_project"])),
        Class("a connection, as a project", of_source, source(n["third"])),
    ]


def measure(known: Registry, tried: list[Class], samples: int) -> dict[str, list[int]]:
    """Nanoseconds of each decision, the classes in a new random order in each round."""
    found: dict[str, list[int]] = {one.name: [] for one in tried}
    order = [(one, itertools.cycle(one.requests), found[one.name].append) for one in tried]
    clock: Callable[[], int] = time.perf_counter_ns
    for _ in range(WARM_UP):
        for one, requests, _ in order:
            decision = decide(known, next(requests), NOW, "req_0")
            assert isinstance(decision, Deny), one.name
            assert decision.code == "invalid", (one.name, decision)
    before = [presigned(NAMES["before"], key=70)[0], presigned(NAMES["nobody"])[0]]
    assert isinstance(decide(known, before[0], NOW, "req_0"), Forward)
    gc.collect()
    gc.disable()
    for _ in range(samples):
        random.shuffle(order)
        for _, requests, note in order:
            # Fresh from the wire, and after one that was granted or one for nobody, by chance: what the
            # caches hold and the branch predictor expects must not be on one side.
            request = next(requests)
            request = request._replace(target=bytes(bytearray(request.target)))
            decide(known, random.choice(before), NOW, "req_0")
            started = clock()
            decide(known, request, NOW, "req_0")
            note(clock() - started)
    gc.enable()
    return found


def welch(one: list[int], other: list[int]) -> float:
    spread = statistics.variance(one) / len(one) + statistics.variance(other) / len(other)
    return float((statistics.fmean(one) - statistics.fmean(other)) / spread**0.5)


def block(samples: int) -> None:
    """One process's share, to standard output: nanoseconds as 64-bit integers, class by class."""
    ballast = [bytes(random.randrange(16, 500)) for _ in range(random.randrange(20_000))]
    found = measure(registry(), classes(), samples)
    for took in found.values():
        sys.stdout.buffer.write(array.array("q", took).tobytes())
    del ballast


def gather(samples: int) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {one.name: [] for one in classes()}
    each = -(-samples // BLOCKS)
    for _ in range(BLOCKS):
        done = subprocess.run(
            [sys.executable, __file__, "--block", str(each)], stdout=subprocess.PIPE, check=True
        )
        took = array.array("q", done.stdout)
        for index, name in enumerate(found):
            found[name] += took[index * each : (index + 1) * each]
    return found


def main() -> int:
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    tried = classes()
    found = gather(samples)
    worst = 0.0
    print(f"{'':36} {'mean':>10} {'median':>9} {'t':>8}")
    for scheme in (None, "source"):
        group = [one for one in tried if ("source" in (one.like or one.name)) == (scheme is not None)]
        everything = sorted(itertools.chain.from_iterable(found[one.name] for one in group))
        limit = everything[int(len(everything) * KEPT)]
        kept = {one.name: [took for took in found[one.name] if took <= limit] for one in group}
        for one in group:
            t = welch(kept[one.name], kept[one.like]) if one.like else 0.0
            worst = max(worst, abs(t))
            mean, median = statistics.fmean(kept[one.name]), statistics.median(kept[one.name])
            print(f"{one.name:36} {mean / 1e3:7.3f} µs {median / 1e3:6.2f} µs {t:8.2f}")
    print(f"{samples} samples of each; largest |t| {worst:.2f}, bound {BOUND}")
    return int(worst > BOUND)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--block"]:
        block(int(sys.argv[2]))
    else:
        sys.exit(main())
