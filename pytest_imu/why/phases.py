"""Follows the lines of a test that runs once more, in the phases that are asked for."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_imu.why.counting import PACES, CountSource, count_source
from pytest_imu.why.holders import Holders
from pytest_imu.why.lines import LineProfiler, under


class Follower:
    """Follows lines between its `begin()` and its `end()`."""

    def __init__(
        self,
        *,
        roots: Collection[str],
        phases: Collection[str],
        folder: Path,
        keep: str | None,
        no_memray: str | None,
        count: Mapping[str, Any] | None,
    ) -> None:
        """Follow what is under the *roots*, from the first of the *phases* to the last.

        memray's file is written in a *folder*, and kept as *keep*; *no_memray* is why there is none.
        *count* says which event is counted, and by what, in the place of memory.
        """
        self.first, *_, self.last = phases if len(phases) > 1 else [*phases] * 2
        self._wanted = under(*roots)
        self._count = count
        self._source: CountSource | None = None
        self._holders: Holders | None = None
        if count is None:
            self._holders = Holders(folder, None if keep is None else Path(keep))
            self._holders.reason = no_memray or self._holders.reason
        else:
            self._source = count_source(**count)
            _leave_own_out(self._source)
        self._profiler: LineProfiler | None = None

    def begin(self) -> None:
        """Begin."""
        if self._count is None:
            self._profiler = LineProfiler(self._wanted)
        else:
            self._profiler = LineProfiler(
                self._wanted, source=self._source, pace=PACES[self._count["by"]]
            )
        if self._holders is not None:
            self._holders.begin()
        try:
            self._profiler.enable_by_count()
        except Exception:
            self._stop()
            raise

    def end(self) -> None:
        """End, where it has begun and has not ended yet."""
        if self._profiler is not None and self._profiler.enable_count:
            try:
                self._profiler.disable_by_count()
            finally:
                self._stop()

    def _stop(self) -> None:
        if self._holders is not None:
            self._holders.end()
        if self._source is not None:
            self._source.stop()

    def plain(self) -> dict[str, Any] | None:
        """Return what was read, in plain form; None where it did not begin."""
        if self._profiler is None:
            return None
        self.end()
        if self._count is not None:
            return self._profiler.counts(self._count["event"]).to_dict()
        held = None if self._holders is None else self._holders.plain(self._wanted)
        return self._profiler.profile().to_dict() | {"held": held}


def _leave_own_out(source: CountSource) -> None:
    """Learn from lines that do nothing what following them adds to each."""
    profiler = LineProfiler(source=source)
    profiler.add_function(_nothing)
    with profiler:
        for _ in range(3):  # the first time is another one
            _nothing()
    source.own_a_window = profiler.least_kept()


def _nothing() -> int:
    one = 1
    two = one
    return two  # noqa: RET504 - a line of its own


class ProfiledPhases:
    """The hooks around a test's phases: innermost, so that no other plugin's work is in a number."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_setup(self) -> Generator[None, object, object]:
        """Follow the setup."""
        return (yield from self._followed("setup"))

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        """Follow the test itself."""
        return (yield from self._followed("call"))

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        """Follow the teardown."""
        return (yield from self._followed("teardown"))

    def _followed(self, phase: str) -> Generator[None, object, object]:
        if phase == self._follower.first:
            self._follower.begin()
        try:
            return (yield)
        finally:
            if phase == self._follower.last:
                self._follower.end()
