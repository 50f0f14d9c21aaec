"""With `--imu -v`: each test's peak behind its outcome, as soon as it is known."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from pytest_imu.recording.warning import FaultsAsWarnings
from pytest_imu.report.table import peak_text


class PeakBehindOutcome:
    """Adds the peak to the word that pytest prints for a test's outcome."""

    def __init__(self, config: pytest.Config) -> None:
        self._guard = FaultsAsWarnings(config.hook, "-v shows no peaks")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_report_teststatus(
        self, report: pytest.CollectReport | pytest.TestReport
    ) -> Generator[None, Any, Any]:  # Any: pytest has no public name for a status
        """Add it where the report brings the measurement of a call."""
        status = yield
        with self._guard:
            record = report.__dict__.get("imu")
            call = dict(record.phases).get("call") if record is not None else None
            if call is not None and status and status[2]:
                category, letter, word = status
                unit = "" if call.peak_bytes is None else " MiB"
                status = category, letter, _with_ending(word, f" (peak {peak_text(call)}{unit})")
        return status


def _with_ending(word: Any, ending: str) -> Any:  # Any: a text, or one with its colours
    return word + ending if isinstance(word, str) else (word[0] + ending, *word[1:])
