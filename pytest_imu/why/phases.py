"""Follows the lines of a test that runs once more, in the phases that are asked for."""

from __future__ import annotations

from collections.abc import Collection, Generator
from pathlib import Path
from typing import Any

import pytest

from pytest_imu.why.holders import Holders
from pytest_imu.why.lines import LineProfiler, under


class ProfiledPhases:
    """The hooks around a test's phases: innermost, so that no other plugin's work is in a number."""

    def __init__(
        self,
        *,
        roots: Collection[str],
        phases: Collection[str],
        folder: Path,
        keep: str | None,
        no_memray: str | None,
    ) -> None:
        """Follow what is under the *roots*, from the first of the *phases* to the last.

        memray's file is written in a *folder*, and kept as *keep*; *no_memray* is why there is none.
        """
        self._holders = Holders(folder, None if keep is None else Path(keep))
        self._holders.reason = no_memray or self._holders.reason
        self._wanted = under(*roots)
        self._first, *_, self._last = phases if len(phases) > 1 else [*phases] * 2
        self._profiler: LineProfiler | None = None

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

    def plain(self) -> dict[str, Any] | None:
        """Return what was read, in plain form; None where the phases did not begin."""
        if self._profiler is None:
            return None
        if self._profiler.enable_count:  # it was left before its last phase
            self._profiler.disable_by_count()
            self._holders.end()
        return self._profiler.profile().to_dict() | {"held": self._holders.plain(self._wanted)}

    def _followed(self, phase: str) -> Generator[None, object, object]:
        if phase == self._first:
            self._profiler = LineProfiler(self._wanted)
            self._holders.begin()
            self._profiler.enable_by_count()
        try:
            return (yield)
        finally:
            if phase == self._last and self._profiler is not None:
                self._profiler.disable_by_count()
                self._holders.end()
