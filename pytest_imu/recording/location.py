"""Where a broken budget points: at its test, and not at the line of this plugin that fails it."""

from __future__ import annotations

import pytest


def point_at_test(item: pytest.Item, report: pytest.TestReport, raised_in: str) -> None:
    """Move a failure that was raised in the file *raised_in* to the test; leave any other as it is."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is None or crash.path != raised_in:
        return
    path, line, _ = item.reportinfo()
    crash.path, crash.lineno = str(path), (line or 0) + 1
    # "line" prints where it crashed with the text once more; without a terminal there is no such option.
    if item.config.getoption("tbstyle", None) == "line":
        report.longrepr.__dict__["reprtraceback"].reprentries = []
