"""The `imu` fixture: named blocks inside a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_imu.keys import RECORD, SETTINGS

if TYPE_CHECKING:
    from pytest_imu.core.meter import Meter
    from pytest_imu.record import TestRecord


class ImuFixture:
    """Measures named blocks of the test that asks for it."""

    def __init__(self, record: TestRecord | None, *, trim: bool, gc: bool) -> None:
        self._record = record
        self._trim = trim
        self._gc = gc

    def measure(self, name: str) -> Meter:
        """Measure a block: `with imu.measure("load") as m: ...`, then `m.peak_bytes` and the rest.

        The block appears under its test, by *name*, in the JSON file and with `-v` in the section.
        """
        if not isinstance(name, str) or not name:
            message = f"imu.measure({name!r}): a block's name is a text that is not empty"
            raise TypeError(message)
        from pytest_imu.blocks import BlockMeter  # noqa: PLC0415 - nothing is imported before it is used

        return BlockMeter(name, self._record, trim=self._trim, gc=self._gc)


@pytest.fixture
def imu(request: pytest.FixtureRequest) -> ImuFixture:
    """Measure named blocks: `with imu.measure("load") as m: ...`, then `m.peak_bytes` and the rest."""
    settings = request.config.stash[SETTINGS]
    return ImuFixture(request.node.stash.get(RECORD, None), trim=settings.trim, gc=settings.gc)
