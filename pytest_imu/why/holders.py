"""What was held at the peak, and which lines asked for it, as memray tells where it is installed."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_imu.why.table import NOT_INSTALLED


class Holders:
    """One of memray's trackers around a part of a run; its file goes, or is kept as *kept*."""

    def __init__(self, folder: Path, kept: Path | None) -> None:
        """*folder* is where the file is written meanwhile; raises no error, but has a `reason`."""
        self.reason: str | None = None
        self._kept = kept
        self._path = folder / f"memray-{os.getpid()}.bin"
        self._name = os.fspath(self._path)  # while a test runs its file system may be a fake
        self._tracker: Any = None  # Any: memray may not be there
        try:
            self._memray: Any = importlib.import_module("memray")
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except ImportError:
            self.reason = NOT_INSTALLED
        except OSError as error:
            self.reason = f"memray has no place for its file: {error}"

    def begin(self) -> None:
        """Begin to track, unless somebody else does: memray has one tracker a process."""
        if self.reason is not None:
            return
        memray = self._memray
        try:
            destination = memray.FileDestination(self._name, overwrite=True)
            form = memray.FileFormat.AGGREGATED_ALLOCATIONS
            tracker = memray.Tracker(destination=destination, file_format=form)
            tracker.__enter__()
        except Exception as error:  # noqa: BLE001 - what is not known is said, and the test runs
            self.reason = f"memray did not start: {error or type(error).__name__}"
            return
        self._tracker = tracker

    def end(self) -> None:
        """Track no more."""
        tracker, self._tracker = self._tracker, None
        if tracker is not None:
            try:
                tracker.__exit__(None, None, None)
            except Exception as error:  # noqa: BLE001 - as above
                self.reason = f"memray did not end: {error or type(error).__name__}"

    def plain(self, wanted: Callable[[str], bool]) -> dict[str, Any]:
        """Return the total and the lines that hold it, in plain form.

        A line is the innermost one in a *wanted* file; None stands for what none of them asked for.
        """
        held: dict[tuple[str, int] | None, int] = {}
        if self.reason is None:
            try:
                held = self._read(wanted)
                self._keep()
            except Exception as error:  # noqa: BLE001 - as above
                self.reason = f"memray's file could not be read: {error or type(error).__name__}"
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
        return {
            "reason": self.reason,
            "asked_bytes": None if self.reason is not None else sum(held.values()),
            "lines": [
                {"file": place and place[0], "line": place and place[1], "held_bytes": size_bytes}
                for place, size_bytes in sorted(held.items(), key=lambda one: -one[1])
            ],
        }

    def _read(self, wanted: Callable[[str], bool]) -> dict[tuple[str, int] | None, int]:
        held: dict[tuple[str, int] | None, int] = {}
        with self._memray.FileReader(self._name) as reader:
            for record in reader.get_high_watermark_allocation_records(merge_threads=True):
                places = ((file, line) for _, file, line in record.stack_trace() if wanted(file))
                place = next(places, None)
                held[place] = held.get(place, 0) + record.size
        return held

    def _keep(self) -> None:
        if self._kept is not None:
            import shutil

            self._kept.parent.mkdir(parents=True, exist_ok=True)
            beside = self._kept.with_name(f".{self._kept.name}.{os.getpid()}")
            shutil.copyfile(self._path, beside)
            beside.replace(self._kept)
