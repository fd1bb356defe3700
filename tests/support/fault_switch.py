"""The switch of `scripts/faults.py`: which function of a gateway fails, and how often one has failed."""

import json
from collections.abc import Iterable
from pathlib import Path

from support.puppet import SCRIPTS

ADDON = ("-s", str(SCRIPTS / "faults.py"))
"""Options of mitmdump that load it."""


class FaultSwitch:
    """Lies in a directory of its own, together with the notes of what has failed."""

    def __init__(self, place: Path, targets: Iterable[str]) -> None:
        """Args: targets: the functions that may be made to fail."""
        self._switch, self._hits = place / "switch", place / "hits"
        self._serial = 0
        self.disarm()
        self._hits.write_text("")
        self.env = {
            "FAULT_SWITCH": str(self._switch),
            "FAULT_HITS": str(self._hits),
            "FAULT_TARGETS": json.dumps(sorted(set(targets))),
        }
        """What the gateway has to find in its environment."""

    def arm(self, target: str, nth: int | str = 1) -> None:
        """From now on `target` fails: on its call of this number, or on every one (0)."""
        self._serial += 1
        assert target not in self.missing()
        draft = self._switch.with_suffix(".draft")
        draft.write_text(f"{target}@{nth} {self._serial}")
        draft.replace(self._switch)

    def missing(self) -> list[str]:
        """The functions that may be made to fail, and that the gateway does not have."""
        notes = self._hits.read_text().splitlines()
        return [note.removeprefix("missing ") for note in notes if note.startswith("missing ")]

    def disarm(self) -> None:
        self._switch.write_text("")

    def strikes(self, target: str = "") -> int:
        """How often something has failed so far, or this function has."""
        return self._hits.read_text().count(f"{target}@")
