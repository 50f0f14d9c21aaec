"""One isolated test, as the session sees and reports it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pytest_imu.core.alone import Alone
from pytest_imu.core.budgets import AnyBudget, Budget, Verdict
from pytest_imu.core.checks import NOT_TO_ITS_END, unchecked
from pytest_imu.isolation import coverage_data as child_coverage
from pytest_imu.isolation.channel import Message
from pytest_imu.isolation.forkserver import ForkServer
from pytest_imu.isolation.messages import flush_output, rebuilt_warning
from pytest_imu.isolation.patience import Patience, TooLongError
from pytest_imu.markers import BUDGETS
from pytest_imu.recording.record import PhaseRecord
from pytest_imu.recording.warning import record_warning

OWN_END_LOOKS = 1
"""For how many seconds a child may end by itself where a timeout has ended the wait for it: it has the
same timeout."""
ABORTED = "SIGABRT"


def is_debugging(config: pytest.Config) -> bool:
    """Whether the child shall have the terminal, for a debugger in it."""
    return bool(getattr(config.option, "usepdb", False) or getattr(config.option, "trace", False))


class IsolatedTest:
    """One test that runs in a child, as the session sees it."""

    def __init__(
        self,
        item: pytest.Item,
        server: ForkServer,
        patience: Patience,
        run_again: Callable[..., Alone],
        *,
        measured: bool,
    ) -> None:
        """*run_again* is for a test that was the first to import much; it gets its ns and modules."""
        self._item = item
        self._run_again = run_again
        self._server = server
        self._patience = patience
        self._measured = measured
        self._phase: Any = "setup"  # Any: pytest has no name for the type of its three words
        self._unreported: list[str] = []
        self._attempt = 0
        self._sections: list[tuple[str, str]] = []
        self._judged: list[AnyBudget] = []
        self._left: Message = None

    def run(self, task: Message) -> None:
        """Have the test run, and report it; raises what ended the whole run in the child."""
        self._server.begin(task)
        timeout: str | None = None
        try:
            with self._debugger_hears_ctrl_c():
                ended = self._take_in_until_end()
        except pytest.fail.Exception as error:
            # A plugin that fails the test that runs too long fails the one that waits for it.
            timeout = str(error)
            ended = self._end_child(OWN_END_LOOKS)
        except TooLongError as error:
            timeout = str(error)
            ended = self._end_child(0)
        except KeyboardInterrupt:
            self._end_child(0)
            raise self._interrupt() from None
        except BaseException:
            self._end_child(0)
            raise
        if self._left is None:
            self._fail(timeout or f"the child process that ran this test {ended}", ended)
        elif timeout is not None and self._interrupted_at is not None:
            # What it was told to do by the failure of the wait is not what it did by itself.
            self._take_leave(self._left, None)
            self._fail(timeout)
        else:
            self._take_leave(self._left, self._left["left"])
            if self._left["left"] is None and self._unreported:
                self._phase = self._unreported[0]
                self._fail(f"the child process that ran this test sent no report of its {self._phase}")

    @contextlib.contextmanager
    def _debugger_hears_ctrl_c(self) -> Iterator[None]:
        """With --pdb and --trace, leave a Ctrl-C to the child: there its debugger asks what to do."""
        if not is_debugging(self._item.config):
            yield
            return
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _take_in_until_end(self) -> str:
        """Take in what the child sends; return how it ended."""
        while not isinstance(event := self._next_event(), str):
            self._take_in(event)
            flush_output(self._item.config)  # before the child prints what comes after
            if event.get("waits"):
                self._server.answer(event["waits"])
        return event

    def _next_event(self) -> Message:
        while True:
            try:
                return self._server.next_event(looks=1)
            except TimeoutError:
                self._patience.pass_second(self._server.child)

    def _end_child(self, looks: int) -> str:
        """Let the child end by itself for so many seconds, then ask it to; at last it is killed."""
        try:
            self._server.end(looks)
            self._patience.end()
            return self._take_in_until_end()
        except BaseException:
            self._server.kill_and_wait()
            raise

    def _take_in(self, message: Message) -> None:
        match message["what"]:
            case "phase":
                self._phase = message["when"]
                self._unreported.append(self._phase)
            case "hook":
                self._call_hook(message["name"], message["arguments"])
            case "again":
                alone = self._run_again(message["first_ns"], message["modules"], **message["rest"])
                self._server.answer(alone.to_dict())
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
            if name == "pytest_runtest_logstart":
                self._attempt += 1
                self._phase, self._sections, self._judged = "setup", [], []
            getattr(hooks, name)(**arguments)

    def _log_report(self, data: dict[str, Any]) -> None:
        config = self._item.config
        report = config.hook.pytest_report_from_serializable(config=config, data=data)
        self._sections = list(report.sections)
        self._unreported = [phase for phase in self._unreported if phase != report.when]
        record: PhaseRecord | None = getattr(report, "imu", None)
        if record is not None:
            self._judged += [verdict.budget for verdict in record.verdicts]
        self._item.ihook.pytest_runtest_logreport(report=report)

    def _take_leave(self, message: Message, left: Message) -> None:
        session = self._item.session
        session.shouldstop = session.shouldstop or message["shouldstop"]
        session.shouldfail = session.shouldfail or message["shouldfail"]
        recorder = self._item.config.pluginmanager.get_plugin("imu-recorder")
        if recorder is not None and message["log_fault"] is not None:
            recorder.note_log_fault(message["log_fault"])
        if message["coverage"] is not None:
            fault = child_coverage.take_in(message["coverage"])
            if fault is not None:
                text = f"the coverage of an isolated test is lost: {fault}"
                record_warning(self._item.ihook, text, nodeid=self._item.nodeid)
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
    def _interrupted_at(self) -> Any:  # a str or None
        """Where in the child an interrupt left the test; None where none did."""
        left = self._left and self._left["left"]
        return left and left.get("where")

    def _interrupt(self) -> KeyboardInterrupt:
        """Return an interrupt that says where the test was: its own traceback ends here."""
        where = "" if self._interrupted_at is None else f" at {self._interrupted_at}"
        return KeyboardInterrupt(f"{self._item.nodeid}{where}")

    def _fail(self, text: str, ended: str = "") -> None:
        """Report the test as failed in the phase that was under way, and end its log."""
        item = self._item
        aborted = _aborted_by(item, self._phase, ended)
        text = text if aborted is None else aborted[1]
        where: Any = {"nodeid": item.nodeid, "location": item.location}  # Any: what hooks take
        if self._attempt == 0:
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
                if aborted is None or budget != aborted[0]
                else Verdict(budget=budget, outcome="broken", reason=text)
                for budget in item.stash.get(BUDGETS, ())
                if budget not in self._judged
            )
            report.__dict__["imu"] = PhaseRecord(
                attempt=max(1, self._attempt), verdicts=tuple(verdicts), isolated=True
            )
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


def _aborted_by(item: pytest.Item, phase: str, ended: str) -> tuple[Budget, str] | None:
    """Return the hard budget that has made an isolated test's process abort, and the line about it.

    *ended* says how the process has ended.
    """
    if phase != "call" or ABORTED not in ended:
        return None
    for budget in item.stash.get(BUDGETS, ()):
        if isinstance(budget, Budget) and budget.hard:
            line = (
                f"stopped by {budget}: the child process that ran this test {ended}, as allocators do "
                "that cannot refuse memory"
            )
            return budget, line
    return None
