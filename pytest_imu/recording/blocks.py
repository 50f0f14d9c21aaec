"""A block of a test that is measured under a name."""

from __future__ import annotations

from types import TracebackType

from pytest_imu.core.meter import Meter
from pytest_imu.core.model import Block
from pytest_imu.recording.record import TestRecord


class BlockMeter(Meter):
    """A meter that hands its measurement to the record of the test it is part of."""

    def __init__(
        self, name: str, record: TestRecord | None, *, trim: bool, gc: bool, children: bool
    ) -> None:
        counters = None if record is None else record.counters
        super().__init__(trim=trim, gc=gc, counters=counters, children=children)
        self._name = name
        self._record = record

    def another(self) -> BlockMeter:
        """Return a meter for another block of the same name: a decorated function has one a call."""
        return BlockMeter(
            self._name, self._record, trim=self._trim, gc=self._gc, children=self._children
        )

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(exc_type, exc, traceback)
        if self._record is not None:
            self._record.add_block(Block(name=self._name, measurement=self.measurement))
