"""Finds the lines behind a test's numbers in one more run of it, and says them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from pytest_imu.core.alone import Alone
from pytest_imu.core.budgets import BudgetPhase, Verdict
from pytest_imu.core.comparable import PEAK, SIZES
from pytest_imu.core.model import PHASES
from pytest_imu.core.units import format_count, format_mib
from pytest_imu.recording.judge import RunAgain
from pytest_imu.recording.record import TestRecord, Why
from pytest_imu.settings import Settings
from pytest_imu.why import phases  # noqa: F401 - bound before a test mocks anything; its forks have it too
from pytest_imu.why.counting import why_not
from pytest_imu.why.profile import CountProfile, LineProfile
from pytest_imu.why.table import (
    DIFFERS_PERCENT,
    all_lines,
    chain_lines,
    count_lines,
    held_lines,
    kept_lines,
    shared_lines,
)

LONGEST_NAME = 200
USUAL_WIDTH = 80


class Explainer:
    """Runs tests once more with their lines followed."""

    def __init__(self, config: pytest.Config, settings: Settings, run_again: RunAgain) -> None:
        """*run_again* runs a test once more, as `CleanRuns.run` does."""
        self._root = config.rootpath
        self._settings = settings
        has_terminal = config.pluginmanager.has_plugin("terminalreporter")  # a worker has none
        self._width = config.get_terminal_writer().fullwidth if has_terminal else USUAL_WIDTH
        self._is_verbose = config.getoption("verbose", 0) > 0
        self._no_memray = "--memray uses memray already" if config.getoption("memray", None) else None
        self.run_again = run_again

    def explain(
        self, item: pytest.Item, first_ns: int, record: TestRecord, broken: Sequence[Verdict]
    ) -> Why:
        """Return what one more run tells of a test that has just passed, or broken these budgets."""
        metric, phase, first = _subject(record, broken)
        try:
            alone = self._followed(item, first_ns, phase, _count(record, metric))
            said = self._said(alone, metric, first)
        except Exception as error:  # noqa: BLE001 - no fault of ours decides about a test
            alone = Alone(reason=f"{type(error).__name__}: {error}")
            said = self._said(alone, metric, first)
        return {
            "metric": metric,
            "phase": phase,
            "reason": alone.reason,
            "text": "\n".join(said),
            "profile": alone.lines,
        }

    def _followed(
        self, item: pytest.Item, first_ns: int, phase: BudgetPhase, count: Mapping[str, Any] | None
    ) -> Alone:
        reason = None if count is None else why_not(count["by"])
        if reason is not None:
            return Alone(reason=reason)
        return self.run_again(
            item,
            first_ns,
            lines={
                "roots": sorted({str(self._root), str(item.path.parent)}),
                "phases": PHASES if phase == "all" else (phase,),
                "keep": self._kept_file(item.nodeid),
                "no_memray": self._no_memray,
                "count": count,
            },
            limit_s=self._settings.why_timeout_s,
        )

    def _kept_file(self, nodeid: str) -> str | None:
        folder = self._settings.why_keep
        if folder is None:
            return None
        return str(folder / (re.sub(r"[^\w.=-]+", "_", nodeid)[-LONGEST_NAME:] + ".bin"))

    def _said(self, alone: Alone, metric: str, first: float | None) -> list[str]:
        if alone.lines is None:
            return [f"the lines are not known: {alone.reason or 'the second run told nothing'}"]
        run = "a second run in the same process" if alone.same_process else "a second run"
        tell = self._said_of_memory if metric in SIZES else self._said_of_counts
        return [
            *tell(alone.lines, metric, first, run),
            *([] if alone.reason is None else [f"in the second run {alone.reason}"]),
            *([f"in the same process: {alone.same_process}"] if alone.same_process else []),
        ]

    def _said_of_memory(
        self, plain: Mapping[str, Any], metric: str, first_bytes: float | None, run: str
    ) -> list[str]:
        profile = LineProfile.from_dict(plain)
        if metric == PEAK:
            second_bytes = profile.peak_bytes
            said = [
                f"where the peak was reached, in {run} (peak {format_mib(second_bytes)}):",
                *chain_lines(profile, self._root, width=self._width),
                *held_lines(profile, self._root, top=self._settings.why_top, width=self._width),
            ]
        else:
            second_bytes = profile.kept_bytes
            said = [
                f"what kept the most, in {run} (kept {format_mib(second_bytes)}):",
                *kept_lines(profile, self._root, top=self._settings.why_top, width=self._width),
            ]
        if self._is_verbose:
            said += ["all lines:", *all_lines(profile, self._root, width=self._width)]
        return [
            *said,
            *shared_lines(profile.lines if self._is_verbose else profile.chain),
            *([] if profile.is_exact else [f"~ {profile.label}: a lower bound"]),
            *_fault_lines(profile.fault),
            *_differing_lines(first_bytes, second_bytes, lambda size: format_mib(round(size))),
        ]

    def _said_of_counts(
        self, plain: Mapping[str, Any], metric: str, first: float | None, run: str
    ) -> list[str]:
        profile = CountProfile.from_dict(plain)
        top = 0 if self._is_verbose else self._settings.why_top
        return [
            f"{metric} by line, in {run} ({format_count(profile.count)}):",
            *count_lines(profile, self._root, top=top, width=self._width),
            *_fault_lines(profile.fault),
            *_differing_lines(first, profile.count, format_count),
        ]


def _subject(record: TestRecord, broken: Sequence[Verdict]) -> tuple[str, BudgetPhase, float | None]:
    """Return what is to be explained: the metric, the phase and the first run's number."""
    if not broken:
        return PEAK, "call", record.phases["call"].peak_bytes
    # Of several, memory first: it is exact.
    verdict = min(broken, key=lambda one: one.budget.metric not in SIZES)
    budget = verdict.budget
    first = verdict.actual_bytes if budget.metric in SIZES else verdict.actual_count
    return budget.metric, budget.phase, first


def _count(record: TestRecord, metric: str) -> Mapping[str, Any] | None:
    """Return which event is to be counted, and by what; None where it is memory."""
    if metric in SIZES:
        return None
    readings = {reading.event: reading for reading in record.phases["call"].counters}
    return {"event": metric, "by": readings[metric].source}


def _fault_lines(fault: str | None) -> list[str]:
    return [] if fault is None else [f"some readings failed: {fault}"]


def _differing_lines(first: float | None, second: float, shown: Callable[[float], str]) -> list[str]:
    """Return that the second run had another number, where it had."""
    if first and abs(second - first) * 100 > DIFFERS_PERCENT * first:
        return [f"the first run had {shown(first)}: there it may be other lines"]
    return []
