"""What is done with a test that runs once more: measured in a clean process, and nobody hears of it."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Collection, Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_imu.core.alone import Alone
from pytest_imu.core.model import Measurement, Phase
from pytest_imu.isolation import coverage_data as child_coverage
from pytest_imu.isolation.channel import Channel, Message
from pytest_imu.isolation.clean import CleanMemory, import_modules
from pytest_imu.isolation.file_pages import FilePages
from pytest_imu.isolation.messages import failure_text
from pytest_imu.isolation.native_threads import unsafe_threads
from pytest_imu.isolation.protocol import run_protocol, take_over
from pytest_imu.isolation.quiet import go_quiet
from pytest_imu.recording.record import PhaseRecord
from pytest_imu.recording.recorder import Recorder


class CleanChild:
    """Made ready in a process that has run no test; each test then has a child of it."""

    def __init__(self, session: pytest.Session, file_pages: FilePages) -> None:
        """*file_pages* are those of the session's process."""
        self._session = session
        self._memory = CleanMemory(file_pages)
        self._kept: list[object] = []
        self._phases: dict[Phase, Measurement] = {}
        self._failure: str | None = None
        self._folder = Path(tempfile.gettempdir(), f"pytest-imu-{secrets.token_hex(8)}")

    def prepare(self, descriptors: Collection[int]) -> None:
        """Cut the process off from what the session shares with it, and make it clean."""
        child_coverage.begin_in_server()
        self._kept = take_over(self._session, self)
        go_quiet(self._session.config, spared=descriptors)
        self._memory.begin_in_child()
        self._memory.clean()

    def import_modules(self, names: Sequence[str]) -> dict[str, int]:
        """Import modules for all children to come."""
        return import_modules(names)

    def close(self) -> None:
        """Remove the folder that children have had for `tmp_path`, unless they have."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def work(self, task: Message, channel: Channel) -> None:
        """Import what the session has imported by now, make the process clean, and run the test."""
        self._memory.begin_in_child()
        imported = import_modules(task["modules"])
        starts_threads = bool(unsafe_threads())
        follower = None
        if task["lines"] is not None:
            from pytest_imu.why.phases import Follower, ProfiledPhases

            follower = Follower(folder=self._folder, **task["lines"])
        self._memory.clean()
        item = self._session.items[task["number"]]
        if item.nodeid != task["nodeid"]:
            raise LookupError(f"{task['nodeid']} was not collected in this place")
        self._use_own_folder(item.config)
        recorder: Recorder = item.config.pluginmanager.get_plugin("imu-recorder")
        recorder.begin_alone()
        if follower is not None:
            item.config.pluginmanager.register(ProfiledPhases(follower), "imu-lines")
        left = run_protocol(item)
        if left is not None:
            self._failure = self._failure or f"was left by {left['by']}"
        alone = Alone(
            phases=self._phases,
            reason=None if self._failure is None else f"it {self._failure}",
            imported=imported,
            lines=None if follower is None else follower.plain(),
            imports_start_threads=starts_threads,
        )
        channel.send(alone.to_dict())
        self.close()

    def _use_own_folder(self, config: pytest.Config) -> None:
        """Let `tmp_path` be in a folder that goes with this process: the session's are numbered."""
        factory: Any = config.__dict__.get("_tmp_path_factory")  # none with -p no:tmpdir
        if factory is not None:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            factory._basetemp = Path(tempfile.mkdtemp(dir=self._folder))  # noqa: SLF001 - no public way

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Notice what fails, before anybody makes something else of it."""
        report = yield
        if call.excinfo is not None and self._failure is None:
            verb = "was skipped" if report.skipped else "failed"
            self._failure = f"{verb} in its {call.when}: {failure_text(call.excinfo.value)}"
        return report

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take in what was measured."""
        record: PhaseRecord | None = getattr(report, "imu", None)
        if record is not None:
            self._phases.update(record.phases)
