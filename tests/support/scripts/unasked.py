"""A script after ours: a shut gate is looked at when its client's waker says so, else an hour later."""

from typing import Any

from presign_proxy.mitm import waker

constants: Any = waker
constants.PAUSE = constants.LONGEST_PAUSE = 3600.0
