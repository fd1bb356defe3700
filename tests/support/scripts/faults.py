"""A second script that breaks one function of the product at a time, as the file $FAULT_SWITCH says.

$FAULT_TARGETS names what may break: a function or `Class.method`, in whichever modules of the product it is
defined and imported. The switch holds one of them, `@`, on which of its calls to raise (0: on every), and a
number that starts the count anew; empty, nothing breaks. Each time one breaks is noted in $FAULT_HITS, and
so is, at start, what there is not.
"""

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

SWITCH = Path(os.environ["FAULT_SWITCH"])
HITS = Path(os.environ["FAULT_HITS"])
TEXT = "EXCEPTION-TEXT that no client may read"


class Fault(Exception):
    """Unlike anything that the product itself could raise or expect."""


class Breaker:
    """Decides at each call whether this is the one that fails."""

    def __init__(self) -> None:
        self._seen = ""
        self._calls = 0

    def check(self, target: str) -> None:
        text = SWITCH.read_text("utf-8")
        if not text.startswith(f"{target}@"):
            return
        if text != self._seen:
            self._seen, self._calls = text, 0
        self._calls += 1
        nth = int(text.split("@")[1].split()[0])
        if nth in (0, self._calls):
            with HITS.open("a", encoding="utf-8") as file:
                file.write(text + "\n")
            raise Fault(f"{TEXT} ({target})")


BREAKER = Breaker()


def _faulty(target: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """The same kind of function: generators and coroutines fail when they are run, not when called."""
    if inspect.isgeneratorfunction(original):

        @functools.wraps(original)
        def generator(*args: Any, **kwargs: Any) -> Any:
            BREAKER.check(target)
            return (yield from original(*args, **kwargs))

        return generator
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            BREAKER.check(target)
            return await original(*args, **kwargs)

        return coroutine

    @functools.wraps(original)
    def function(*args: Any, **kwargs: Any) -> Any:
        BREAKER.check(target)
        return original(*args, **kwargs)

    return function


def _modules() -> list[Any]:
    return [module for name, module in sys.modules.items() if name.startswith("presign_proxy.")]


def _install(target: str) -> bool:
    """Replace a function wherever in the product its name is bound; false where there is none."""
    owner, _, name = target.rpartition(".")
    replaced: dict[Any, Any] = {}
    for module in _modules():
        holder = getattr(module, owner, None) if owner else module
        original = vars(holder).get(name) if holder is not None else None
        if not callable(original) or original in replaced.values():
            continue
        if not original.__module__.startswith("presign_proxy."):
            continue
        replaced.setdefault(original, _faulty(target, original))
        setattr(holder, name, replaced[original])
    return bool(replaced)


missing = [one for one in json.loads(os.environ["FAULT_TARGETS"]) if not _install(one)]
HITS.write_text("".join(f"missing {one}\n" for one in missing), "utf-8")
