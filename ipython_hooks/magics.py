"""The magics: `%imu`, `%%imu`, and the ancestor's `%imu_start` and `%imu_stop`."""

from __future__ import annotations

from typing import Any, get_args

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class
from traitlets import Bool, Enum, Float, Int, Unicode

from ipython_hooks import commands
from ipython_hooks.arguments import CommandError
from ipython_hooks.options import STYLES
from ipython_hooks.running import WithAwait, at_once
from ipython_hooks.session import Session
from pytest_imu.core.counters.source import CounterChoice


@magics_class
class ImuMagics(Magics):
    """Reports what each command used, and measures what it is asked to."""

    decimals = Int(1, min=0, max=6, help="Number of decimals of sizes.").tag(config=True)
    command_width = Int(60, min=10, help="Width to which commands are cut.").tag(config=True)
    style = Enum(
        STYLES,
        default_value="auto",
        help="How to report: the ancestor's line, a short one, none, or what fits the front end.",
    ).tag(config=True)
    min_mib: float | None = Float(  # type: ignore[assignment]  # it may be None too
        default_value=None,
        allow_none=True,
        min=0.0,
        help="Report only commands that moved this many MiB or more; None: 1 in notebooks, else 0.",
    ).tag(config=True)
    perf = Unicode("", help="Events to count, separated by commas.").tag(config=True)
    counters = Enum(
        get_args(CounterChoice),
        default_value="auto",
        help="What counts events: auto asks the kernel, and perf for what only perf can name.",
    ).tag(config=True)
    raw_samples = Bool(default_value=False, help="Show all samples of an event.").tag(config=True)
    trim = Bool(default_value=True, help="Return freed memory to the system first.").tag(config=True)
    gc = Bool(default_value=False, help="Run a garbage collection before measuring.").tag(config=True)
    live = Bool(default_value=False, help="Show memory live.").tag(config=True)
    live_interval_s = Float(0.5, min=0.05, help="Seconds between live readings.").tag(config=True)
    live_after_s = Float(2.0, min=0.1, help="Seconds until a command is shown live.").tag(config=True)
    perf_idle_s = Float(60.0, min=1.0, help="Stop perf after this many idle seconds.").tag(config=True)

    def __init__(self, shell: Any, **arguments: Any) -> None:  # Any: the shells have no common type
        super().__init__(shell, **arguments)
        self.session = Session(shell, self)
        self.with_await = WithAwait(shell)

    @line_cell_magic
    def imu(self, line: str, cell: str | None = None) -> Any:
        """Measure memory: what each command used, its peak, and the total.

        After every command:
            %imu on | off            start or stop reporting after each command
            %imu status              show what is measured, and how
            %imu help                show this
            %imu perf [EVENTS|off]   count events (default: cache-misses); --raw shows all samples
            %imu live on|off         show memory in the prompt's toolbar and during long commands
            %imu style auto|ancestor|short|off
            %imu free                let go of tracebacks, Out, _ and garbage, and say what each won

        What was measured:
            %imu last                show the last command again
            %imu why                 explain the last command, and say how to see its lines
            %imu history [N]         show a table of all, or of the last N; `imu_history` is the data
            %imu top [N]             show the commands with the largest peaks, and those that kept most
            %imu vars [N]            show which names hold memory now, by the buffers that really own it
            %imu save FILE           write all of it as JSON, in the format of `pytest --imu-json`
            %imu plot [FILE]         plot the session (needs matplotlib)

        One statement or cell, whether reporting is on or off:
            %imu run [-r N] STATEMENT
            %%imu [-r N] [-q] [-j FILE]
                                     run it N times and show the median and the range; -q shows nothing,
                                     -j writes JSON. `m = %imu run ...` keeps the result, also found in
                                     `imu_last`.
            %imu leaks [-n N] STATEMENT
                                     run it again and again, and say what each run leaves behind
            %%imu lines              run a cell as usual, and show what each of its statements used
            %imu lines -f FUNC [-f FUNC] STATEMENT
                                     run it and show what each line of these functions used; for a cell
                                     that awaits: %%imu lines -f FUNC

        A limit:
            %imu limit 8GiB          raise MemoryError in a command that comes near it; also as 90%
            %imu limit [off]         tell the limit, or end it
        """
        try:
            if cell is not None:
                return at_once(commands.measure_cell(self.session, line, cell))
            return commands.run(self.session, line)
        except CommandError as error:
            raise UsageError(str(error)) from None

    async def awaited(self, line: str, cell: str, lines_above: int) -> Any:
        """Measure a cell or a statement that awaits: `WithAwait` has put this in its place."""
        try:
            return await commands.measure_cell(self.session, line, cell, lines_above=lines_above)
        except CommandError as error:
            raise UsageError(str(error)) from None

    @line_magic
    def imu_start(self, line: str = "") -> None:  # noqa: ARG002 - IPython passes the line
        """Start reporting after each command: `%imu on`."""
        commands.run(self.session, "on")

    @line_magic
    def imu_stop(self, line: str = "") -> None:  # noqa: ARG002 - IPython passes the line
        """Stop reporting: `%imu off`."""
        commands.run(self.session, "off")
