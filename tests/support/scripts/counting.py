"""A second script that says in the log each time the core decides, and each time a head is redacted."""

import logging
from typing import Any

from presign_proxy import flows, gateway

logger = logging.getLogger(__name__)


def counted(owner: Any, name: str) -> None:
    stock = getattr(owner, name)

    def told(*arguments: Any, **named: Any) -> Any:
        logger.warning("counted: %s", name)
        return stock(*arguments, **named)

    setattr(owner, name, told)


def load(_loader: Any) -> None:
    counted(gateway, "decide")
    counted(flows, "redact")
