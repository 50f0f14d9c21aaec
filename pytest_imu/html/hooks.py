"""`--imu-html`: writes the page of the run that has just ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_imu.core.invalid import RefusedError
from pytest_imu.core.outfile import writing
from pytest_imu.core.system import OwnProcess
from pytest_imu.html.page import page, templates
from pytest_imu.html.run import PageRun
from pytest_imu.recording.warning import FaultsAsWarnings
from pytest_imu.report.reporter import Reporter
from pytest_imu.settings import Settings


class PageWriter:
    """Writes the page, in the process that reports; what it needs is imported before the tests run."""

    def __init__(
        self, config: pytest.Config, settings: Settings, path: Path, reporter: Reporter
    ) -> None:
        self._config = config
        self._settings = settings
        self._path = path
        self._reporter = reporter
        self._process = OwnProcess()
        try:
            templates()
        except RefusedError as error:
            raise pytest.UsageError(f"--imu-html: {error}") from None

    @pytest.hookimpl(trylast=True)  # behind the reporter's own, which compares the run
    def pytest_sessionfinish(self) -> None:
        """Write the page, unless nothing ran or this is a child that a test forked."""
        if self._config.option.collectonly or not self._process.is_current:
            return
        with FaultsAsWarnings(self._config.hook, f"--imu-html: {self._path} could not be written"):
            reporter = self._reporter
            run = PageRun(
                attempts=reporter.attempts(),
                environment=reporter.environment_now(),
                comparison=reporter.comparison,
                whole=reporter.whole,
            )
            text = page(run, self._settings)
            try:
                with writing(self._path) as file:
                    file.write(text)
            except OSError as error:
                reporter.more_notes.append(f"--imu-html: {self._path} could not be written: {error}")
