"""The JSON file of a test run: its rows, and what they depend on besides the tests."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import pytest

import pytest_imu
from pytest_imu.core import document
from pytest_imu.core.counters.callgrind.command import USUAL_CACHES
from pytest_imu.core.counters.choice import source_text
from pytest_imu.history.compare import Comparison
from pytest_imu.history.source import digest
from pytest_imu.history.wording import plain_changes
from pytest_imu.report.rows import Row
from pytest_imu.settings import SETTINGS, Settings


def write(
    path: Path,
    rows: Sequence[Row],
    environment: dict[str, Any],
    *,
    comparison: Comparison | None = None,
    stdout: IO[str],
) -> None:
    """Write the run's document; raises OSError."""
    document.write(path, (_plain(row, comparison) for row in rows), environment, stdout=stdout)


def _plain(row: Row, comparison: Comparison | None) -> dict[str, Any]:
    if comparison is None:
        return row.to_dict()
    compared = comparison.by_nodeid.get(row.nodeid)
    changes = [] if compared is None else plain_changes(compared.changes)
    return {**row.to_dict(), "compared": changes}


def whole_environment(
    rows: Sequence[Row], settings: Settings, environment: dict[str, Any], *, noise_bytes: int | None
) -> dict[str, Any]:
    """Return the environment with what is known only at the run's end."""
    return {
        **environment,
        "noise_floor_bytes": noise_bytes,
        "counter_source": _counter_source(rows, settings),
    }


def sources_of(rows: Sequence[Row], root: Path, *, until_ns: int) -> dict[str, str]:
    """Return what tells each test file from other versions of it; nothing of one that has changed."""
    found = {}
    for name in dict.fromkeys(row.nodeid.partition("::")[0] for row in rows):
        path = root / name
        with contextlib.suppress(Exception):  # it is gone, or a test has broken what reads it
            if path.suffix == ".py" and path.stat().st_mtime_ns <= until_ns:
                found[name] = digest(path.read_bytes())
    return found


def _counter_source(rows: Sequence[Row], settings: Settings) -> str | None:
    caches = settings.caches or USUAL_CACHES if settings.simulate != "off" else None
    return source_text((one for row in rows for one in row.phases.values()), caches=caches)


def describe_run(config: pytest.Config) -> dict[str, Any]:
    """Return what the numbers depend on, as far as it is known before the tests run."""
    distributions = config.pluginmanager.list_plugin_distinfo()
    plugins = {distribution.project_name: distribution.version for _, distribution in distributions}
    return {
        **document.describe_machine(trim=config.stash[SETTINGS].trim, version=pytest_imu.__version__),
        "pytest": pytest.__version__,
        "plugins": dict(sorted(plugins.items())),
        "packages": document.installed_packages(),
    }
