"""What one shell is measuring: the watcher, the counters, the live display and the limit."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ipython_hooks import notes, tracebacks, wording
from ipython_hooks.limit import MemoryLimit
from ipython_hooks.lines.cell import LinesOfCells
from ipython_hooks.options import Options
from ipython_hooks.records import CommandRecord
from ipython_hooks.soft_limit import SoftLimit
from ipython_hooks.variables.grown import GrowingNames
from ipython_hooks.watcher import CellResult, CellWatcher
from pytest_imu.core.counters.source import EVENT_EXPECTED, UNKNOWN_EVENT, CounterSource
from pytest_imu.core.invalid import InvalidValueError
from pytest_imu.core.meter import Meter
from pytest_imu.core.units import MIB, encodable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipython_hooks.live import Live
    from pytest_imu.core.model import CounterReading

HISTORY_NAME = "imu_history"
LAST_NAME = "imu_last"


class Session:
    """Everything that `%load_ext` starts and `%unload_ext` ends."""

    def __init__(self, shell: Any, options: Options) -> None:  # Any: shells have no common type
        self.shell = shell
        self.options = options
        self.names = GrowingNames(shell)
        self.watcher = CellWatcher(
            meter=self._watching_meter,
            grown=self.names.after_command,
            ended=self._command_ended,
            note=self._note,
            emit=self._report,
            complain=lambda text: self.say([text]),
        )
        self._children = notes.ChildrenNotes()
        self.counters: CounterSource | None = None
        self.cell_lines = LinesOfCells(self)
        self.limit = SoftLimit(shell, MemoryLimit(), self.say)
        self.live: Live | None = None
        self.watching = False
        self.in_kernel = hasattr(shell, "kernel")
        self._counting: CounterSource | None = None
        self._said_uncounted: set[str] = set()
        self._rows: list[dict[str, Any]] = []
        self._last: object = None
        self._last_before: object = None

    def start(self) -> None:
        """Begin to report after each command."""
        if not self.watching:
            self.watching = True
            self.names.look()
            self.shell.events.register("pre_run_cell", self.watcher.before)
            self.shell.events.register("post_run_cell", self.watcher.after)
            self._put(HISTORY_NAME, self._rows, instead_of=self._rows)

    def stop(self) -> None:
        """Stop reporting; the history stays."""
        if self.watching:
            self.watching = False
            self.shell.events.unregister("pre_run_cell", self.watcher.before)
            self.shell.events.unregister("post_run_cell", self.watcher.after)
            self.watcher.forget_running()

    def close(self) -> None:
        """End everything that was started, and take back what was put into the namespace."""
        self.stop()
        self.cell_lines.stop()
        self.show_live(on=False)
        self.count(())
        self.limit.lift()
        for name, value in ((HISTORY_NAME, self._rows), (LAST_NAME, self._last)):
            if value is not None and self.shell.user_ns.get(name) is value:
                del self.shell.user_ns[name]

    def meter(self) -> Meter:
        """Return a meter with the session's options."""
        return Meter(trim=self.options.trim, gc=self.options.gc, counters=self.counters)

    def count(self, events: tuple[str, ...]) -> list[str]:
        """Count these events from the next command on; none ends that.

        Return why some of them have no value, as an empty window tells. InvalidValueError is raised for
        one that nothing knows, and what is counted then stays as it is.
        """
        counters, readings = self._tried(events) if events else (None, ())
        if self.counters is not None:
            self.counters.stop()
        self.counters = counters
        self._said_uncounted.clear()
        return self._why_uncounted(readings)

    def _tried(self, events: tuple[str, ...]) -> tuple[CounterSource, tuple[CounterReading, ...]]:
        from pytest_imu.core.counters.choice import source_of_counts

        options = self.options
        source = source_of_counts(
            events, choice=options.counters, samples=True, idle_s=options.perf_idle_s
        )
        source.prepare()
        window = source.open()
        window.end()
        readings = window.read(0)
        for reading in readings:
            if reading.reason is not None and reading.reason.startswith(UNKNOWN_EVENT):
                source.stop()
                raise InvalidValueError(reading.event, EVENT_EXPECTED)
        return source, readings

    def show_live(self, *, on: bool) -> None:
        """Show memory live, or stop showing it."""
        if self.live is not None:
            self.live.stop()
            self.live = None
        if on:
            from ipython_hooks.live import NOT_IN_NOTEBOOKS, Live

            if self.in_kernel:
                self.say([NOT_IN_NOTEBOOKS])
                return

            self.live = Live(self.shell, self.options)
            self.live.start()

    def keep_last(self, value: object) -> None:
        """Put a measurement into the namespace, as `imu_last`."""
        self._put(LAST_NAME, value, instead_of=self._last)
        self._last = value

    @property
    def style(self) -> str:
        """How commands are reported: what was asked for, or what fits the front end."""
        style = self.options.style
        return style if style != "auto" else "short" if self.in_kernel else "ancestor"

    @property
    def columns(self) -> int | None:
        """The width of the terminal; None where the output goes elsewhere."""
        return shutil.get_terminal_size().columns if sys.stdout.isatty() else None

    def say(self, lines: list[str], *, metadata: dict[str, Any] | None = None) -> None:
        """Show lines of text, quietly where the front end can."""
        if self.in_kernel:
            from IPython.display import display

            plain = {"text/plain": "\n".join(lines), "text/html": wording.quiet_html(lines)}
            display(plain, raw=True, metadata=metadata)  # type: ignore[no-untyped-call]  # partly typed
        else:
            self.print_lines(lines)

    @staticmethod
    def print_lines(lines: Iterable[str]) -> None:
        """Print lines of text, in characters that standard output can write."""
        text = encodable("\n".join(lines), getattr(sys.stdout, "encoding", None) or "utf-8")
        print(text)  # noqa: T201 - an extension speaks to the person at the prompt

    def _put(self, name: str, value: object, *, instead_of: object) -> None:
        """Put a value into the namespace, unless the person has one of their own by that name."""
        namespace = self.shell.user_ns
        if name not in namespace or namespace[name] is instead_of:
            namespace[name] = value

    def _watching_meter(self) -> Meter:
        self._counting, self._last_before = self.counters, self._last
        meter = self.meter()
        if self.live is not None:
            self.live.command_begins(meter)
        return meter

    def _command_ended(self) -> None:
        if self.live is not None:
            self.live.command_ends()

    def _note(
        self, record: CommandRecord, result: CellResult | None, cpu_ns: int
    ) -> tuple[notes.Note, ...]:
        error = None if result is None else result.error_in_exec
        return notes.notes_on(
            record,
            cpu_ns=cpu_ns,
            held_bytes=tracebacks.held_bytes(error, self.shell.user_ns),
            children=self._children.after(had_children=record.measurement.had_children),
        )

    def _report(self, record: CommandRecord) -> None:
        row = record.to_dict()
        self._rows.append(row)
        self._put(HISTORY_NAME, self._rows, instead_of=self._rows)  # %reset takes it away
        if self._last is self._last_before:  # else the command itself has measured something
            self.keep_last(record)
        style = self.style
        uncounted = self._uncounted(record)
        if style == "off" or record.is_under(self._least_bytes()):
            return
        lines = wording.report_lines(record, self.options, style=style, columns=self.columns)
        self.say(lines + uncounted, metadata={"imu": row})

    def _least_bytes(self) -> float:
        """Return the size under which a command leaves no line."""
        least_mib = self.options.min_mib
        return MIB * ((1 if self.in_kernel else 0) if least_mib is None else least_mib)

    def _uncounted(self, record: CommandRecord) -> list[str]:
        """Return why events have no value, each reason once until the events change."""
        if self._counting is not self.counters:
            return []  # what the command itself stopped counting is not worth a word
        return self._why_uncounted(record.measurement.counters)

    def _why_uncounted(self, readings: Iterable[CounterReading]) -> list[str]:
        lines = []
        for reading in readings:
            if reading.reason is not None and reading.event not in self._said_uncounted:
                self._said_uncounted.add(reading.event)
                lines.append(f"{wording.value_for(reading)}: n/a, {reading.reason}")
        return lines
