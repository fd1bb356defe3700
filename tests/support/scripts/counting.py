"""A second script that says in the log each time the core decides, and each time a head is redacted."""

import logging
from typing import Any

from presign_proxy.core import decide
from presign_proxy.mitm.flow import flow_display

logger = logging.getLogger(__name__)
stock: dict[str, tuple[Any, Any]] = {}


def counted(owner: Any, name: str) -> None:
    stock[name] = owner, getattr(owner, name)

    def told(*arguments: Any, **named: Any) -> Any:
        logger.warning("counted: %s", name)
        return stock[name][1](*arguments, **named)

    setattr(owner, name, told)


def load(_loader: Any) -> None:
    counted(decide, "decide")
    counted(flow_display, "redact")


def done() -> None:
    for name, (owner, function) in stock.items():
        setattr(owner, name, function)
