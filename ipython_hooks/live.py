"""Memory while it happens, in terminals: in the prompt's toolbar, and on a row during long commands."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from typing import Any, TextIO

import psutil

from ipython_hooks.options import Options
from ipython_hooks.records import difference
from pytest_imu.core.meter import Meter
from pytest_imu.core.units import format_bytes, format_mib, format_signed_mib

NOT_IN_NOTEBOOKS = (
    "no live display in notebooks, where it would stand among the cell's own outputs; "
    "the extension jupyter-resource-usage shows the kernel's memory in JupyterLab's status bar"
)
FEWEST_ROWS = 4
"""In a terminal with fewer rows, a row is worth more to the person than the line."""


class TerminalLine:
    """The terminal's last row, kept out of what scrolls, so that the command may print meanwhile."""

    def __init__(self, stream: TextIO) -> None:
        # Bound here: the command may redirect sys.stderr, and what it captures is its own.
        self._stream = stream
        self._size: os.terminal_size | None = None

    def show(self, text: str) -> None:
        """Write over the last row; the cursor stays where the command has it."""
        size = os.get_terminal_size(self._stream.fileno())
        if size.lines < FEWEST_ROWS or keys_are_read(self._stream.fileno()):
            self.remove()
            return
        reserve = ""
        if size != self._size:
            self.remove()  # from the row that was the last one
            # Down and up again: a cursor on the last row takes its text one row up with it.
            reserve, self._size = f"\x1bD\x1bM\x1b7\x1b[1;{size.lines - 1}r\x1b8", size
        self._write(f"{reserve}\x1b7\x1b[{size.lines};1H\x1b[2K{text[: size.columns - 1]}\x1b8")

    def remove(self) -> None:
        """Erase the row, and let it scroll again."""
        size, self._size = self._size, None
        if size is not None:
            self._write(f"\x1b7\x1b[r\x1b[{size.lines};1H\x1b[2K\x1b8")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def keys_are_read(descriptor: int) -> bool:
    """Return whether a debugger, an editor or a pager has the terminal: the screen is theirs then."""
    if sys.platform == "win32":
        return False
    import termios

    try:
        return not termios.tcgetattr(descriptor)[3] & termios.ICANON
    except termios.error:  # the terminal is gone
        return True


class Live:
    """Shows this process's memory while a command runs long and while the prompt waits."""

    def __init__(self, shell: Any, options: Options) -> None:  # Any: shells have no common type
        self._shell = shell
        self._options = options
        self._waiting: Meter | None = None
        self._command: _LongCommand | None = None
        self._toolbar = self.toolbar_text
        self._prompt: Any = None  # Any: prompt_toolkit is not imported for its type
        self._toolbar_before: tuple[Any, Any] = (None, None)

    def start(self) -> None:
        """Put the toolbar under the prompt, where there is a prompt and somebody who sees it."""
        prompt = getattr(self._shell, "pt_app", None)
        if prompt is not None and sys.stdout.isatty():
            self._prompt = prompt
            self._toolbar_before = (prompt.bottom_toolbar, prompt.refresh_interval)
            prompt.bottom_toolbar = self._toolbar
            prompt.refresh_interval = self._options.live_interval_s
        self._wait()

    def stop(self) -> None:
        """Take everything away, and leave a toolbar that somebody else has put there meanwhile."""
        self.command_ends()
        self._end_waiting()
        prompt, self._prompt = self._prompt, None
        if prompt is not None and prompt.bottom_toolbar is self._toolbar:
            prompt.bottom_toolbar, prompt.refresh_interval = self._toolbar_before

    def command_begins(self, meter: Meter) -> None:
        """Show the command once it has run for a while."""
        self._end_waiting()
        line = self._line()
        if line is not None:
            self._command = _LongCommand(meter, line, self._options)

    def command_ends(self) -> None:
        """Take the command's line away, and watch the prompt again."""
        command, self._command = self._command, None
        if command is not None:
            command.stop()
        self._wait()

    def toolbar_text(self) -> str:
        """Return what stands in the toolbar."""
        left = format_bytes(psutil.virtual_memory().available)
        rss, peak = _sizes_of(self._waiting)
        return f"memory {rss} MiB | peak since the last command {peak} MiB | system memory left {left}"

    def _wait(self) -> None:
        if self._waiting is None and self._prompt is not None:
            self._waiting = Meter(trim=False)
            self._waiting.__enter__()

    def _end_waiting(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.__exit__(None, None, None)

    def _line(self) -> TerminalLine | None:
        seen = sys.stdout.isatty() and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        return TerminalLine(sys.stderr) if seen else None


class _LongCommand:
    """The thread that shows one command, from some seconds after its beginning to its end."""

    def __init__(self, meter: Meter, line: TerminalLine, options: Options) -> None:
        self._meter = meter
        self._line = line
        self._options = options
        self._ended = threading.Event()
        self._start_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="imu-live", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; it leaves nothing on the screen."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        if self._ended.wait(self._options.live_after_s):
            return
        # Nobody to show it to: the terminal is closed.
        with contextlib.suppress(OSError, ValueError), contextlib.ExitStack() as stack:
            stack.callback(self._line.remove)
            self._show()
            while not self._ended.wait(self._options.live_interval_s):
                self._show()

    def _show(self) -> None:
        rss, peak = _sizes_of(self._meter)
        seconds = time.monotonic() - self._start_s
        self._line.show(f"{seconds:.1f} s, memory {rss} MiB, peak so far {peak} MiB")


def _sizes_of(meter: Meter | None) -> tuple[str, str]:
    """Return the RSS now, and how far the highest so far was above where the meter's block began."""
    rss_bytes, highest_bytes = (None, None) if meter is None else meter.peek()
    begin_bytes = None if meter is None else meter.opened_at_bytes
    above_bytes = difference(highest_bytes, begin_bytes)
    return format_mib(rss_bytes), format_signed_mib(above_bytes)
