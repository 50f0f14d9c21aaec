"""What one shell is measuring: the watcher, the counters, the live display and the limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipython_hooks import notes, wording
from ipython_hooks.limit import MemoryLimit
from ipython_hooks.lines.cell import LinesOfCells
from ipython_hooks.options import Options
from ipython_hooks.records import CommandRecord
from ipython_hooks.variables.grown import GrowingNames
from ipython_hooks.watcher import CellResult, CellWatcher
from pytest_imu.core.counters.source import EVENT_EXPECTED, UNKNOWN_EVENT, CounterSource
from pytest_imu.core.invalid import InvalidValueError
from pytest_imu.core.meter import Meter

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
            note=self._note,
            emit=self._report,
            complain=self._complain,
            grown=self.names.after_command,
        )
        self.counters: CounterSource | None = None
        self.cell_lines = LinesOfCells(self)
        self.limit = MemoryLimit()
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
            if self.live is not None:
                self.live.command_ends()  # the command that stops the report is not seen to its end

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
            from ipython_hooks.live import Live

            self.live = Live(self.shell, self.options)
            self.live.start()

    def keep_last(self, value: object) -> None:
        """Put a measurement into the namespace, as `imu_last`."""
        self._put(LAST_NAME, value, instead_of=self._last)
        self._last = value

    @property
    def shows_html(self) -> bool:
        """Whether what is said is HTML."""
        style = self.options.style
        return style == "html" or (style == "auto" and self.in_kernel)

    def say(self, lines: list[str]) -> None:
        """Show lines of text, quietly where the front end can."""
        if self.shows_html:
            from IPython.display import display

            plain = {"text/plain": "\n".join(lines), "text/html": wording.quiet_html(lines)}
            display(plain, raw=True)  # type: ignore[no-untyped-call]  # IPython is partly typed
        else:
            print("\n".join(lines))  # noqa: T201 - an extension speaks to the person at the prompt

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

    def _note(self, record: CommandRecord, result: CellResult | None) -> tuple[str, ...]:
        return notes.notes_on(
            record,
            output_number=None if result is None else notes.output_number(self.shell, result),
        )

    def _report(self, record: CommandRecord) -> None:
        if self.live is not None:
            self.live.command_ends()
        self._rows.append(record.to_dict())
        self._put(HISTORY_NAME, self._rows, instead_of=self._rows)  # %reset takes it away
        if self._last is self._last_before:  # else the command itself has measured something
            self.keep_last(record)
        self.say(wording.report_lines(record, self.options) + self._uncounted(record))

    def _complain(self, text: str) -> None:
        if self.live is not None:
            self.live.command_ends()
        self.say([text])

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
