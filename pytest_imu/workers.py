"""Under pytest-xdist: what the workers and the process that controls them have to tell each other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_imu.keys import REPORTER
from pytest_imu.reporting import Reporter
from pytest_imu.settings import Settings

USAGE_ERROR = "imu_usage_error"
SKIPPED = "imu_skipped_budgets"
LOG_FAULT = "imu_log_fault"
NOISE = "imu_noise_bytes"


def is_worker(config: pytest.Config) -> bool:
    """Tell whether this process is one of xdist's workers."""
    return hasattr(config, "workerinput")


@contextlib.contextmanager
def telling_usage_errors(config: pytest.Config) -> Iterator[None]:
    """Let a usage error out, and from a worker also home: there it would end that worker alone."""
    try:
        yield
    except pytest.UsageError as error:
        if is_worker(config):
            _output(config)[USAGE_ERROR] = str(error)
        raise


def tell_skipped(config: pytest.Config, budgets: int) -> None:
    """Note how many budgets `--no-imu` left unenforced."""
    if is_worker(config):
        _output(config)[SKIPPED] = budgets
    else:
        config.stash[REPORTER].skipped_budgets = budgets


def tell_log_fault(config: pytest.Config, fault: str) -> None:
    """Note that a line of the run log could not be written."""
    if is_worker(config):
        _output(config)[LOG_FAULT] = fault
    else:
        config.stash[REPORTER].log_fault = fault


def tell_noise(config: pytest.Config, noise_bytes: int | None) -> None:
    """Note this process's noise floor."""
    if is_worker(config):
        _output(config)[NOISE] = noise_bytes
    else:
        config.stash[REPORTER].hear_noise(noise_bytes)


def _output(config: pytest.Config) -> dict[str, Any]:
    # xdist's own attribute: a dict of plain values that it sends to the controller at the end.
    output: dict[str, Any] = config.__dict__["workeroutput"]
    return output


class Controller:
    """The hooks of the process that controls the workers."""

    def __init__(self, settings: Settings, reporter: Reporter) -> None:
        self._settings = settings
        self._reporter = reporter

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:  # Any: xdist has no public type for it
        """Send the run log's path, which a worker may see from another folder."""
        path = self._settings.log_path
        node.workerinput["imu_log_path"] = None if path is None else str(path)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:  # Any: xdist has no public type for it
        """Take in what a worker noted. Each collects all tests, so one worker's count is everyone's."""
        output = getattr(node, "workeroutput", {})  # none where the worker was killed
        if USAGE_ERROR in output:
            raise pytest.UsageError(output[USAGE_ERROR])
        self._reporter.hear_noise(output.get(NOISE))
        self._reporter.log_fault = output.get(LOG_FAULT, self._reporter.log_fault)
        self._reporter.skipped_budgets = output.get(SKIPPED, self._reporter.skipped_budgets)
