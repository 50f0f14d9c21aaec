"""The `imu` fixture: named blocks inside a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_imu.core.invalid import invalid, shown
from pytest_imu.settings import SETTINGS

if TYPE_CHECKING:
    from pytest_imu.core.meter import Meter
    from pytest_imu.recording.record import TestRecord
    from pytest_imu.recording.recorder import Recorder
    from pytest_imu.settings import Settings


class ImuFixture:
    """Measures named blocks of the test that asks for it."""

    def __init__(self, record: TestRecord | None, settings: Settings) -> None:
        self._record = record
        self._settings = settings

    def measure(self, name: str) -> Meter:
        """Measure a block: `with imu.measure("load") as m: ...`, then `m.peak_bytes` and the rest.

        The block appears under its test, by *name*, in the JSON file and with `-v` in the section.
        """
        if not isinstance(name, str) or not name:
            message = invalid(f"imu.measure({shown(name)})", "a name that is not empty")
            raise TypeError(message)
        from pytest_imu.core.meter import Meter
        from pytest_imu.core.model import Block, Measurement

        asked, record = self._settings, self._record

        def keep(measurement: Measurement) -> None:
            if record is not None:
                record.add_block(Block(name=name, measurement=measurement))

        counters = None if record is None else record.counters
        return Meter(
            trim=asked.trim, gc=asked.gc, children=asked.children, counters=counters, on_end=keep
        )


@pytest.fixture
def imu(request: pytest.FixtureRequest) -> ImuFixture:
    """Measure named blocks: `with imu.measure("load") as m: ...`, then `m.peak_bytes` and the rest."""
    recorder: Recorder | None = request.config.pluginmanager.get_plugin("imu-recorder")
    record = None if recorder is None else recorder.record_of(request.node)
    return ImuFixture(record, request.config.stash[SETTINGS])
