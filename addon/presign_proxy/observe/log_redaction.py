"""Remove signatures and tokens from all log records."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable
from typing import Any

# The look-behind makes the pattern try each run of digits once, from its beginning. A token contains its
# signature. Without it, the token only says what was granted, so nothing else is removed.
_SIGNATURE = re.compile(r"(?<![0-9a-fA-F])[0-9a-fA-F]{64,}")

Factory = Callable[..., logging.LogRecord]


class Redaction:
    """A log record factory that wraps the installed one, and redacts each message when it is made."""

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
            return record  # the handler reports the mistake in the call
        redacted = self.redact(message)
        if redacted != message:
            record.msg, record.args = redacted, ()
        if record.exc_info and record.exc_info[0] is not None:
            text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
            redacted = self.redact(text)
            if redacted != text:
                # Formatters print `exc_info` themselves, so the redacted text goes into the message instead.
                record.msg, record.args, record.exc_info = f"{record.getMessage()}\n{redacted}", (), None
        return record

    @staticmethod
    def redact(text: str) -> str:
        """Return the text without signatures."""
        return _SIGNATURE.sub("[redacted]", text) if len(text) >= 64 else text
