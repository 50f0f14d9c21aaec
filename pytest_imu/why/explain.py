"""Finds the lines behind a test's numbers in one more run of it, and says them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from pytest_imu.core.alone import Alone
from pytest_imu.core.budgets import BudgetPhase, Verdict
from pytest_imu.core.model import PHASES
from pytest_imu.core.units import format_mib
from pytest_imu.recording.judge import RunAgain
from pytest_imu.recording.record import TestRecord, Why
from pytest_imu.settings import Settings
from pytest_imu.why.profile import LineProfile
from pytest_imu.why.table import (
    DIFFERS_PERCENT,
    all_lines,
    chain_lines,
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
        metric, phase, first_bytes = _subject(record, broken)
        try:
            alone = self._followed(item, first_ns, phase)
            said = self._said(alone, metric, first_bytes)
        except Exception as error:  # noqa: BLE001 - no fault of ours decides about a test
            alone = Alone(reason=f"{type(error).__name__}: {error}")
            said = self._said(alone, metric, first_bytes)
        return {
            "metric": metric,
            "phase": phase,
            "reason": alone.reason,
            "text": "\n".join(said),
            "profile": alone.lines,
        }

    def _followed(self, item: pytest.Item, first_ns: int, phase: BudgetPhase) -> Alone:
        return self.run_again(
            item,
            first_ns,
            lines={
                "roots": sorted({str(self._root), str(item.path.parent)}),
                "phases": PHASES if phase == "all" else (phase,),
                "keep": self._kept_file(item.nodeid),
                "no_memray": self._no_memray,
            },
            limit_s=self._settings.why_timeout_s,
        )

    def _kept_file(self, nodeid: str) -> str | None:
        folder = self._settings.why_keep
        if folder is None:
            return None
        return str(folder / (re.sub(r"[^\w.=-]+", "_", nodeid)[-LONGEST_NAME:] + ".bin"))

    def _said(self, alone: Alone, metric: str, first_bytes: int | None) -> list[str]:
        if alone.lines is None:
            return [f"the lines are not known: {alone.reason or 'the second run told nothing'}"]
        profile = LineProfile.from_dict(alone.lines)
        if metric == "peak":
            second_bytes = profile.peak_bytes
            said = [
                f"where the peak was reached, in a second run (peak {format_mib(second_bytes)}):",
                *chain_lines(profile, self._root, width=self._width),
                *held_lines(profile, self._root, top=self._settings.why_top, width=self._width),
            ]
        else:
            second_bytes = profile.kept_bytes
            said = [
                f"what kept the most, in a second run (kept {format_mib(second_bytes)}):",
                *kept_lines(profile, self._root, top=self._settings.why_top, width=self._width),
            ]
        if self._is_verbose:
            said += ["all lines:", *all_lines(profile, self._root, width=self._width)]
        return [
            *said,
            *shared_lines(profile.lines if self._is_verbose else profile.chain),
            *([] if alone.reason is None else [f"in the second run {alone.reason}"]),
            *_about(profile, first_bytes, second_bytes),
        ]


def _subject(record: TestRecord, broken: Sequence[Verdict]) -> tuple[str, BudgetPhase, int | None]:
    """Return what is to be explained: the metric, the phase and the first run's number."""
    if not broken:
        return "peak", "call", record.phases["call"].peak_bytes
    verdict = broken[0]
    return verdict.budget.metric, verdict.budget.phase, verdict.actual_bytes


def _about(profile: LineProfile, first_bytes: int | None, second_bytes: int) -> list[str]:
    """Return what has to be known of these numbers."""
    said = [] if profile.is_exact else [f"~ {profile.label}: a lower bound"]
    if profile.fault is not None:
        said.append(f"some readings failed: {profile.fault}")
    if first_bytes and abs(second_bytes - first_bytes) * 100 > DIFFERS_PERCENT * first_bytes:
        said.append(f"the first run had {format_mib(first_bytes)}: there it may be other lines")
    return said
