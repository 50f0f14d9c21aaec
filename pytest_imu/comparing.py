"""`--imu-compare`: the earlier run is read before any test runs, and its numbers become limits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imu.core.invalid import InvalidValueError
from pytest_imu.markers import BUDGETS
from pytest_imu.settings import SETTINGS, Settings

if TYPE_CHECKING:
    from pytest_imu.history.entries import Side

FLAG = "--imu-compare"
BASE: pytest.StashKey[Side] = pytest.StashKey()
"""Where the earlier run is kept, on the config of the controlling process."""
LIMITS = "imu_compare"
"""Where an xdist worker finds what it is told of the earlier run."""


def read_base(config: pytest.Config, settings: Settings) -> None:
    """Read the earlier run, in the controlling process; pytest.UsageError where it cannot be used."""
    path = settings.compare_path
    if path is None:
        if settings.compare_if_exists or config.getoption("imu_fail_increase"):
            flag = "--imu-compare-if-exists" if settings.compare_if_exists else "--imu-fail-increase"
            raise pytest.UsageError(f"{flag} needs {FLAG}=PATH, the file of an earlier run")
        return
    if settings.off or (settings.compare_if_exists and not path.exists()):
        return
    from pytest_imu.history.entries import read_side
    from pytest_imu.history.load import UnusableFileError

    if not path.exists():
        expected = f"a file that exists; a run with --imu-json={path.name} writes it"
        raise pytest.UsageError(InvalidValueError(str(path), expected).of(FLAG))
    try:
        config.stash[BASE] = read_side(str(path))
    except UnusableFileError as error:
        raise pytest.UsageError(f"{FLAG}: {error}") from None


def add_limits(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Hold each test to what its numbers were, where `--imu-fail-increase` says by how much."""
    plain = told(config)
    if plain is None:
        return
    from pytest_imu.history.compare import Limits

    limits = Limits(**plain, increases=config.stash[SETTINGS].fail_increase)
    for item in items:
        if own := limits.of(item.nodeid):
            item.stash[BUDGETS] = (*item.stash.get(BUDGETS, ()), *own)


def told(config: pytest.Config) -> dict[str, Any] | None:
    """Return what limits are made of, which a worker was sent; None where there shall be none."""
    if hasattr(config, "workerinput"):
        plain: dict[str, Any] | None = config.workerinput.get(LIMITS)
        return plain
    side = config.stash.get(BASE, None)
    return side.to_plain() if side is not None and config.stash[SETTINGS].fail_increase else None


def missing_base(settings: Settings) -> Path | None:
    """Return the earlier run's file where it is missing and may be."""
    path = settings.compare_path
    if settings.off or path is None or not settings.compare_if_exists or path.exists():
        return None
    return path


SELECTING = (
    *("keyword", "markexpr", "deselect", "lf", "stepwise", "maxfail", "ignore", "ignore_glob"),
    "splits",  # pytest-split's
)
"""Options that leave tests out; under xdist nobody else tells the controller of it."""


def ran_whole_suite(config: pytest.Config) -> bool:
    """Tell whether nothing was left out: then what did not run does not exist any more."""
    asked = any(getattr(config.option, name, None) for name in SELECTING)
    return not asked and config.args_source is not pytest.Config.ArgsSource.ARGS
