"""A gateway of two workers with exchanges that last, for the tests of what is under way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.cutting import Cutting, cutting
from support.flowing import Flowing
from support.puppet import eventually


@pytest.fixture(scope="module")
def flowing() -> Iterator[Flowing]:
    with Flowing() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def module_lab(tmp_path_factory: pytest.TempPathFactory, flowing: Flowing) -> Iterator[Cutting]:
    with cutting(tmp_path_factory.mktemp("cutting"), flowing) as found:
        yield found


@pytest.fixture
def lab(module_lab: Cutting) -> Iterator[Cutting]:
    """The gateway with nothing under way, before and afterwards. Nothing of it may fail meanwhile."""
    logged = len(module_lab.gateway.log())
    yield module_lab.fresh()
    module_lab.hang_up()
    assert eventually(lambda: module_lab.upstream.gauge.now == 0, 10)
    log = module_lab.gateway.log()[logged:]
    assert "failed" not in log
    assert "Traceback" not in log
