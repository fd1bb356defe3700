"""A script after ours: a shut gate is looked at when its client's bell rings, and otherwise an hour later."""

from typing import Any

from presign_proxy.mitm import bell

constants: Any = bell
constants.PAUSE = constants.LONGEST_PAUSE = 3600.0
