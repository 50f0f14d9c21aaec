"""The `imu` fixture: named blocks inside a test."""

from __future__ import annotations

from types import TracebackType

import pytest

from pytest_imu.core.meter import Meter
from pytest_imu.core.model import Block
from pytest_imu.record import RECORD, TestRecord
from pytest_imu.settings import SETTINGS


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
        return _BlockMeter(name, self._record, trim=self._trim, gc=self._gc)


class _BlockMeter(Meter):
    def __init__(self, name: str, record: TestRecord | None, *, trim: bool, gc: bool) -> None:
        super().__init__(trim=trim, gc=gc, counters=None if record is None else record.counters)
        self._name = name
        self._record = record

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(exc_type, exc, traceback)
        if self._record is not None:
            self._record.add_block(Block(name=self._name, measurement=self.measurement))


@pytest.fixture
def imu(request: pytest.FixtureRequest) -> ImuFixture:
    """Measure named blocks: `with imu.measure("load") as m: ...`, then `m.peak_bytes` and the rest."""
    settings = request.config.stash[SETTINGS]
    return ImuFixture(request.node.stash.get(RECORD, None), trim=settings.trim, gc=settings.gc)
