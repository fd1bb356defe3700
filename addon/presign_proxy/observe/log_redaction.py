"""Log records without signatures and tokens, whoever writes them."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable
from typing import Any

# A run of digits is looked at once, from its beginning.
_SIGNATURE = re.compile(r"(?<![0-9a-fA-F])[0-9a-fA-F]{64,}")

# Without its signature, a token is only a statement of what was granted.

Factory = Callable[..., logging.LogRecord]


class Redaction:
    """A log record factory around the one that was installed: each message is redacted as it is made."""

    def __init__(self) -> None:
        self._inner: Factory = logging.LogRecord

    def install(self) -> None:
        self._inner = logging.getLogRecordFactory()
        logging.setLogRecordFactory(self)

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self._inner(*args, **kwargs)
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            return record  # whoever wrote it hears of it from the handler
        redacted = self.redact(message)
        if redacted != message:
            record.msg, record.args = redacted, ()
        if record.exc_info and record.exc_info[0] is not None:
            text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
            redacted = self.redact(text)
            if redacted != text:
                # Formatters print what `exc_info` holds, so it becomes part of the message.
                record.msg, record.args, record.exc_info = f"{record.getMessage()}\n{redacted}", (), None
        return record

    @staticmethod
    def redact(text: str) -> str:
        """The text without what could be used."""
        return _SIGNATURE.sub("[redacted]", text) if len(text) >= 64 else text
