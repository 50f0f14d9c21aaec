"""CellWatcher: which commands are reported, when the shell's events come in every order they can."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import pytest

from ipython_hooks.notes import Note
from ipython_hooks.records import CommandRecord
from ipython_hooks.watcher import CellResult, CellWatcher, is_own
from pytest_imu.core.meter import Meter
from pytest_imu.core.model import Measurement

USED_10 = Measurement(
    before_bytes=100, after_bytes=110, rss_peak_bytes=115, duration_ns=7, source="kernel"
)


class Info:
    """What the shell tells of a command before it runs."""

    def __init__(self, raw_cell: str, *, store_history: bool = True, cell_id: str | None = None) -> None:
        self.raw_cell = raw_cell
        self.store_history = store_history
        self.cell_id = cell_id


class Result:
    """What the shell tells of a command after it ran."""

    def __init__(self, info: Info | None, *, success: bool = True, number: int | None = 1) -> None:
        self.info: Any = info  # Any: the protocol's attribute may be set, so it is invariant
        self.success = success
        self.execution_count = number
        self.error_in_exec: BaseException | None = None


class ScriptedMeter(Meter):
    """A meter that reads nothing, and counts how often it was opened and closed."""

    def __init__(
        self,
        calls: list[str],
        *,
        fault: BaseException | None = None,
        measurement: Measurement = USED_10,
    ) -> None:
        super().__init__()
        self._calls = calls
        self._begin_fault = fault
        self._scripted = measurement

    def __enter__(self) -> Self:
        """Begin, or fail."""
        self._calls.append("open")
        if self._begin_fault is not None:
            raise self._begin_fault
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End."""
        self._calls.append("close")

    @property
    def measurement(self) -> Measurement:
        """What was scripted."""
        return self._scripted


class Shell:
    """A watcher with everything it was given to say."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.emitted: list[CommandRecord] = []
        self.complaints: list[str] = []
        self.meter_fault: BaseException | None = None
        self.measurement = USED_10
        self.note: Callable[[CommandRecord, CellResult | None, int], tuple[Note, ...]] = lambda *_: ()
        self.cpu_ns = 0
        self.watcher = CellWatcher(
            meter=self._new_meter,
            ended=lambda: self.calls.append("ended"),
            note=self._noted,
            emit=self.emitted.append,
            complain=self.complaints.append,
            cpu_ns=lambda: self.cpu_ns,
            now_ns=lambda: 5,
        )

    def run(self, command: str, *, number: int = 1) -> None:
        """Run a command that does nothing."""
        info = Info(command)
        self.watcher.before(info)
        self.watcher.after(Result(info, number=number))

    def _noted(self, record: CommandRecord, result: CellResult | None, cpu_ns: int) -> tuple[Note, ...]:
        return self.note(record, result, cpu_ns)

    def _new_meter(self) -> ScriptedMeter:
        return ScriptedMeter(self.calls, fault=self.meter_fault, measurement=self.measurement)

    @property
    def commands(self) -> list[str]:
        """The commands that were reported."""
        return [record.command for record in self.emitted]


@pytest.fixture
def shell() -> Shell:
    """Return a watcher without a shell."""
    return Shell()


def test_pair_is_one_record(shell: Shell) -> None:
    """A command that begins and ends is measured once, kept, and reported with its number."""
    shell.run("a = 1", number=4)
    expected = CommandRecord(number=4, command="a = 1", began_ns=5, measurement=USED_10, raised=False)
    assert [expected] == shell.emitted
    assert [expected] == shell.watcher.history
    assert ["open", "close", "ended"] == shell.calls


@pytest.mark.parametrize("result", [None, Result(None), Result(Info(""), number=None)])
def test_end_without_beginning_is_silent(shell: Shell, result: Result | None) -> None:
    """What ends and never began, as an empty command or the one that loads, is not spoken of."""
    shell.watcher.after(result)
    assert ([], [], []) == (shell.emitted, shell.calls, shell.complaints)


def test_empty_command_inside_another_ends_nothing(shell: Shell) -> None:
    """An empty command run by another one, which only ends, leaves the other one running."""
    outer = Info("run_cell('')")
    shell.watcher.before(outer)
    shell.watcher.after(Result(Info(""), number=None))
    assert [] == shell.emitted
    shell.watcher.after(Result(outer))
    assert ["run_cell('')"] == shell.commands


@pytest.mark.parametrize("inner_command", ["inner", "outer"])
def test_nested_command_is_part_of_the_outer(shell: Shell, inner_command: str) -> None:
    """A command that another one runs, though it be the same text, is not reported by itself."""
    outer, inner = Info("outer"), Info(inner_command)
    shell.watcher.before(outer)
    shell.watcher.before(inner)
    shell.watcher.after(Result(inner, number=2))
    assert [] == shell.emitted
    shell.watcher.after(Result(outer, number=1))
    assert [("outer", 1)] == [(record.command, record.number) for record in shell.emitted]
    assert ["open", "close", "ended"] == shell.calls


@pytest.mark.parametrize("result", [None, Result(None, success=False, number=None)])
def test_interrupt_without_info_is_reported(shell: Shell, result: Result | None) -> None:
    """A command interrupted so hard that the shell knows nothing of it is reported as raised."""
    shell.watcher.before(Info("while True: pass"))
    shell.watcher.after(result)
    assert [("while True: pass", None, True)] == [
        (record.command, record.number, record.raised) for record in shell.emitted
    ]


def test_interrupt_with_an_info_of_its_own_is_reported(shell: Shell) -> None:
    """An interrupted command, for which the shell makes an info anew, is known by its text."""
    shell.watcher.before(Info("while True: pass"))
    shell.watcher.after(Result(Info("while True: pass"), success=False))
    assert [("while True: pass", True)] == [(record.command, record.raised) for record in shell.emitted]


def test_overlapping_commands_leave_nothing_behind(shell: Shell) -> None:
    """A command that begins in another and outlives it, as in a subshell, is not reported, and the
    next one is.
    """
    first, second = Info("first"), Info("second")
    shell.watcher.before(first)
    shell.watcher.before(second)
    shell.watcher.after(Result(first))
    shell.watcher.after(Result(second))
    shell.run("third")
    assert ["first", "third"] == shell.commands


def test_lost_end_of_a_nested_command(shell: Shell) -> None:
    """A nested command whose end never came does not keep the following ones unreported."""
    outer = Info("outer")
    shell.watcher.before(outer)
    shell.watcher.before(Info("inner"))
    shell.watcher.after(Result(outer))
    shell.run("next")
    assert ["outer", "next"] == shell.commands


def test_switched_off_in_the_middle(shell: Shell) -> None:
    """A command that switches the report off is not reported, its window is closed, and the report
    can begin again.
    """
    info = Info("%imu off")
    shell.watcher.before(info)
    shell.watcher.forget_running()
    shell.watcher.after(Result(info))
    assert ([], ["open", "close", "ended"]) == (shell.emitted, shell.calls)
    shell.run("a = 1")
    assert ["a = 1"] == shell.commands


def test_forgetting_nothing(shell: Shell) -> None:
    """With nothing running there is nothing to forget."""
    shell.watcher.forget_running()
    assert [] == shell.calls


def test_raised_and_unnumbered(shell: Shell) -> None:
    """A command that raised is marked so, and one that is not in the history has no number."""
    info = Info("1/0", store_history=False)
    shell.watcher.before(info)
    shell.watcher.after(Result(info, success=False, number=3))
    assert [(True, None)] == [(record.raised, record.number) for record in shell.emitted]


def test_notes_are_in_the_record(shell: Shell) -> None:
    """What the notes say of a measured command stands in the record that is kept and reported."""
    shell.note = lambda record, *_: (
        Note(f"{record.measurement.delta_bytes} of note", 3),
        Note("more", 2),
    )
    shell.run("a = 1")
    assert [(("10 of note", "more"), 3)] == [
        (record.notes, record.noted_bytes) for record in shell.emitted
    ]
    assert shell.emitted == shell.watcher.history


def test_what_came_between_two_commands(shell: Shell) -> None:
    """What the memory moved between two commands stands in the second one's record; after the first
    one, and after what was measured elsewhere, it is counted from there; after a pause it is unknown.
    """
    shell.run("first")
    shell.measurement = dataclasses.replace(USED_10, before_bytes=150, after_bytes=190)
    shell.run("second")
    shell.watcher.total_bytes = 145
    shell.run("third")
    shell.watcher.forget_running()
    shell.run("fourth")
    assert [None, 40, 5, None] == [record.since_last_bytes for record in shell.emitted]


def test_what_is_told_to_imu_leaves_no_record(shell: Shell) -> None:
    """A command to `%imu` is measured like any, for its live line, and neither kept nor reported."""
    shell.run("%imu history")
    assert ([], [], ["open", "close", "ended"]) == (
        shell.emitted,
        shell.watcher.history,
        shell.calls,
    )


@pytest.mark.parametrize(
    ("command", "own"),
    [
        *(
            (own, True)
            for own in ("%imu", " %imu history 3\n", "%imu?", "?%imu", "imu_stop", "imu last")
        ),
        *(
            (own, True)
            for own in ("m = %imu run -r 3 a = 1", "%%imu -r 2\na = 1", "%imu off\n\n%imu on")
        ),
        *((other, False) for other in ("a = 1", "%imu off\na = 1", "imu = 5", "x = imu", "%imus")),
        *((other, False) for other in ("%%time\n%imu last", "imu.start()", "%timeit imu")),
    ],
)
def test_what_is_told_to_imu(command: str, own: bool) -> None:  # noqa: FBT001 - pytest passes it
    """A command is `%imu`'s own if all of its lines are; a cell magic is as its first line is."""
    assert own == is_own(command)


def test_processor_time_and_cell(shell: Shell) -> None:
    """The notes hear of the processor time between the two events, and the record has the cell's id."""
    heard = []

    def note(record: CommandRecord, _: CellResult | None, cpu_ns: int) -> tuple[Note, ...]:
        heard.append((record.cell_id, cpu_ns))
        return ()

    shell.note = note
    info = Info("a = 1", cell_id="abc")
    shell.cpu_ns = 100
    shell.watcher.before(info)
    shell.cpu_ns = 130
    shell.watcher.after(Result(info))
    assert [("abc", 30)] == heard


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (OSError("gone"), "a command is not reported: OSError: gone"),
        (KeyboardInterrupt(), "a command is not reported: KeyboardInterrupt"),
    ],
)
def test_fault_at_the_beginning_costs_one_report(shell: Shell, fault: BaseException, said: str) -> None:
    """A fault, or a ^C, as measuring begins is said, reaches nobody, and the next command is right."""
    shell.meter_fault = fault
    shell.run("first")
    assert ([], [said], ["open", "close", "ended"]) == (shell.emitted, shell.complaints, shell.calls)
    shell.meter_fault = None
    shell.run("second")
    assert ["second"] == shell.commands


@pytest.mark.parametrize("fault", [ValueError("x"), KeyboardInterrupt("x")])
def test_fault_at_the_end_costs_one_report(shell: Shell, fault: BaseException) -> None:
    """A fault, or a ^C, as a command is reported is said, reaches nobody, and the next is right."""
    faults: Iterator[BaseException] = iter([fault])

    def note(*_: object) -> tuple[Note, ...]:
        for one in faults:
            raise one
        return ()

    shell.note = note
    shell.run("first")
    shell.run("second")
    assert [f"a command is not reported: {type(fault).__name__}: x"] == shell.complaints
    assert ["second"] == shell.commands


def test_broken_complaint_reaches_nobody() -> None:
    """Where even the way to say so is broken, the shell still goes on."""
    calls: list[str] = []

    def closed(*_: object) -> None:
        calls.append("said")
        raise ValueError("I/O operation on closed file")

    watcher = CellWatcher(
        meter=lambda: ScriptedMeter(calls),
        ended=lambda: calls.append("ended"),
        note=lambda *_: (),
        emit=closed,
        complain=closed,
    )
    info = Info("a = 1")
    watcher.before(info)
    watcher.after(Result(info))
    assert ["open", "close", "ended", "said", "said"] == calls
