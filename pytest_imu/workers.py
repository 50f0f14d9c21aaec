"""Under pytest-xdist: what the workers and the process that controls them have to tell each other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imu import comparing
from pytest_imu.recording.warning import FaultsAsWarnings
from pytest_imu.report.reporter import REPORTER, Reporter
from pytest_imu.settings import Settings

if TYPE_CHECKING:
    from pytest_imu.recording.recorder import Recorder

USAGE_ERROR = "imu_usage_error"
SKIPPED = "imu_skipped_budgets"
LOG_FAULT = "imu_log_fault"
NOISE = "imu_noise_bytes"
FIRST_IMPORTS = "imu_first_imports"


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


def _output(config: pytest.Config) -> dict[str, Any]:
    # xdist's own attribute: a dict of plain values that it sends to the controller at the end.
    output: dict[str, Any] = config.__dict__["workeroutput"]
    return output


class Teller:
    """Tells home, as this process ends its tests, what the recorder noted besides their numbers."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Hand over how much noise there was, and whether the run log has lines missing."""
        config = session.config
        recorder: Recorder | None = config.pluginmanager.get_plugin("imu-recorder")
        if recorder is None:
            return
        isolation = config.pluginmanager.get_plugin("imu-isolation")
        imports = {} if isolation is None else isolation.first_imports
        with FaultsAsWarnings(config.hook, "the noise of the run, or a fault of its log, is lost"):
            if is_worker(config):
                told = {NOISE: recorder.noise_bytes, LOG_FAULT: recorder.log_fault}
                _output(config).update({**told, FIRST_IMPORTS: imports})
            else:
                config.stash[REPORTER].hear(recorder.noise_bytes, recorder.log_fault, imports)


class Controller:
    """The hooks of the process that controls the workers."""

    def __init__(self, settings: Settings, reporter: Reporter) -> None:
        self._settings = settings
        self._reporter = reporter

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:  # Any: xdist has no public type for it
        """Send the run log's path, which a worker may see from another folder, and earlier numbers."""
        path = self._settings.log_path
        node.workerinput["imu_log_path"] = None if path is None else str(path)
        node.workerinput[comparing.LIMITS] = comparing.told(node.config)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:  # Any: xdist has no public type for it
        """Take in what a worker noted. Each collects all tests, so one worker's count is everyone's."""
        output = getattr(node, "workeroutput", {})  # none where the worker was killed
        if USAGE_ERROR in output:
            raise pytest.UsageError(output[USAGE_ERROR])
        self._reporter.hear(output.get(NOISE), output.get(LOG_FAULT), output.get(FIRST_IMPORTS, {}))
        self._reporter.skipped_budgets = output.get(SKIPPED, self._reporter.skipped_budgets)
