"""One isolated test's stay in its child, as the session sees and reports it."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_imu.core.budgets import AnyBudget, unchecked
from pytest_imu.isolation import coverage_data as child_coverage
from pytest_imu.isolation.forkserver import Ended, Nursery
from pytest_imu.isolation.messages import Message, decode, flush_output, rebuilt_warning
from pytest_imu.markers import BUDGETS
from pytest_imu.recording.record import NOT_TO_ITS_END, PhaseRecord
from pytest_imu.recording.warning import record_warning

OWN_END_S = 0.5
"""How long a child may take to end by itself: a Ctrl-C or a timeout has reached it as well."""
TEARDOWN_S = 5.0
"""How long a child may take to tear its fixtures down once it was told to end."""


class Visit:
    """One test's stay in a child, as the session sees it."""

    _clock_s = staticmethod(time.monotonic)

    def __init__(self, item: pytest.Item, nursery: Nursery, *, measured: bool) -> None:
        self._item = item
        self._nursery = nursery
        self._measured = measured
        self._phase: Any = "setup"  # Any: pytest has no name for the type of its three words
        self._attempt = 0
        self._open_log = False
        self._sections: list[tuple[str, str]] = []
        self._judged: list[AnyBudget] = []
        self._left: Message | None = None

    def run(self, number: int) -> None:
        """Have the test run, and report it; raises what ended the whole run in the child."""
        self._nursery.begin(number)
        interruption: BaseException | None = None
        try:
            with self._debugger_hears_ctrl_c():
                ended = self._take_in_until_end(None)
        except BaseException as error:
            ended = self._end_child()
            if isinstance(error, KeyboardInterrupt):
                raise self._interrupt() from None
            # A plugin that fails the test that runs too long fails the one that waits for it.
            if not isinstance(error, pytest.fail.Exception):
                raise
            interruption = error
        if self._left is not None:
            # What it was told to do by the failure of the wait is not what it did by itself.
            told = interruption is not None and self._interrupted_at is not None
            self._take_leave({**self._left, "left": None} if told else self._left)
            if not told:
                return
        if interruption is not None:
            self._fail(str(interruption))
        elif ended is not None:
            self._fail(f"the child process that ran this test {ended.why}")

    @contextlib.contextmanager
    def _debugger_hears_ctrl_c(self) -> Iterator[None]:
        """With --pdb and --trace, leave a Ctrl-C to the child: there its debugger asks what to do."""
        option = self._item.config.option
        if not (getattr(option, "usepdb", False) or getattr(option, "trace", False)):
            yield
            return
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _take_in_until_end(self, timeout_s: float | None) -> Ended | None:
        """Take in what comes home; return how the child ended, None if it did not in time."""
        deadline = None if timeout_s is None else self._clock_s() + timeout_s
        while True:
            left_s = None if deadline is None else max(0.0, deadline - self._clock_s())
            event = self._nursery.next_event(left_s)
            if event is None or isinstance(event, Ended):
                return event
            self._take_in(decode(event))
            flush_output(self._item.config)  # before the child prints what comes after

    def _end_child(self) -> Ended | None:
        """Let the child end by itself, then ask it to, then kill it."""
        try:
            ended = self._take_in_until_end(OWN_END_S)
            if ended is None:
                self._nursery.signal(signal.SIGINT)
                ended = self._take_in_until_end(TEARDOWN_S)
        except BaseException:
            self._kill_child()
            raise
        return self._kill_child() if ended is None else ended

    def _kill_child(self) -> Ended:
        self._nursery.signal(signal.SIGKILL)
        while not isinstance(event := self._nursery.next_event(), Ended):
            continue
        return event

    def _take_in(self, message: Message) -> None:
        match message["what"]:
            case "phase":
                self._phase = message["when"]
            case "hook":
                self._call_hook(message["name"], message["arguments"])
            case "left":
                self._left = message

    def _call_hook(self, name: str, arguments: dict[str, Any]) -> None:
        hooks = self._item.ihook
        if name == "pytest_runtest_logreport":
            self._log_report(arguments["report"])
        elif name == "pytest_warning_recorded":
            arguments["warning_message"] = rebuilt_warning(arguments["warning_message"])
            hooks.pytest_warning_recorded.call_historic(kwargs=arguments)
        else:
            self._open_log = name == "pytest_runtest_logstart"
            if self._open_log:
                self._attempt += 1
                self._phase, self._sections, self._judged = "setup", [], []
            getattr(hooks, name)(**arguments)

    def _log_report(self, data: dict[str, Any]) -> None:
        config = self._item.config
        report = config.hook.pytest_report_from_serializable(config=config, data=data)
        self._sections = list(report.sections)
        record: PhaseRecord | None = getattr(report, "imu", None)
        if record is not None:
            self._judged += [verdict.budget for verdict in record.verdicts]
        self._item.ihook.pytest_runtest_logreport(report=report)

    def _take_leave(self, message: Message) -> None:
        session, left = self._item.session, message["left"]
        session.shouldstop = session.shouldstop or message["shouldstop"]
        session.shouldfail = session.shouldfail or message["shouldfail"]
        recorder = self._item.config.pluginmanager.get_plugin("imu-recorder")
        if recorder is not None and message["log_fault"] is not None:
            recorder.note_log_fault(message["log_fault"])
        if message["coverage"] is not None:
            self._warn_of_coverage(child_coverage.take_in(message["coverage"]))
        if left is None:
            return
        match left["by"]:
            case "exit":
                pytest.exit(left["reason"], returncode=left["returncode"])
            case "interrupt":
                raise self._interrupt()
            case _:
                self._fail(left["text"])

    @property
    def _interrupted_at(self) -> str | None:
        """Where in the child an interrupt left the test; None where none did."""
        left = None if self._left is None else self._left["left"]
        return None if left is None else left.get("where")

    def _interrupt(self) -> KeyboardInterrupt:
        """Return an interrupt that says where the test was: its own traceback ends here."""
        where = "" if self._interrupted_at is None else f" at {self._interrupted_at}"
        return KeyboardInterrupt(f"{self._item.nodeid}{where}")

    def _warn_of_coverage(self, fault: str | None) -> None:
        if fault is not None:
            text = f"the coverage of an isolated test is lost: {fault}"
            record_warning(self._item.ihook, text, nodeid=self._item.nodeid)

    def _fail(self, text: str) -> None:
        """Report the test as failed in the phase that was under way, and end its log."""
        item = self._item
        where: Any = {"nodeid": item.nodeid, "location": item.location}  # Any: what hooks take
        if not self._open_log and self._attempt == 0:
            item.ihook.pytest_runtest_logstart(**where)
        report = pytest.TestReport(
            **where,
            keywords=dict.fromkeys(item.keywords, 1),
            outcome="failed",
            longrepr=text,
            when=self._phase,
            sections=[*self._sections, *self._output()],
        )
        if self._measured:
            verdicts = (
                unchecked(budget, NOT_TO_ITS_END)
                for budget in item.stash.get(BUDGETS, ())
                if budget not in self._judged
            )
            report.__dict__["imu"] = PhaseRecord(attempt=max(1, self._attempt), verdicts=tuple(verdicts))
            report.__dict__["imu_crashed"] = True
        item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(**where)

    def _output(self) -> list[tuple[str, str]]:
        """Return what the child printed in its last phase: it stands in the file that pytest reads."""
        capture: Any = self._item.config.pluginmanager.get_plugin("capturemanager")
        if capture is None:
            return []
        streams = zip(("stdout", "stderr"), capture.read_global_capture(), strict=True)
        return [(f"Captured {name} {self._phase}", text) for name, text in streams if text]
