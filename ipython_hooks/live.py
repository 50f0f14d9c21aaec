"""Memory while it happens: in the prompt's toolbar, and on one line or display during long commands."""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, TextIO

import psutil

from ipython_hooks.options import Options
from pytest_imu.core.meter import Meter
from pytest_imu.core.units import format_bytes, format_mib

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


class NotebookLine:
    """One display of the cell that runs, updated in its place, and emptied at the end."""

    def __init__(self, publisher: Any) -> None:  # Any: IPython's publishers are partly typed
        # Bound here: `%%capture` puts another one in its place, and what it captures is the cell's.
        self._publisher = publisher
        self._display_id = uuid.uuid4().hex
        self._shown = False

    def show(self, text: str) -> None:
        """Show the text, or update it."""
        self._publish({"text/plain": text})
        self._shown = True

    def remove(self) -> None:
        """Leave an empty display, which takes no room."""
        if self._shown:
            self._publish({"text/plain": "", "text/html": ""})
            self._shown = False

    def _publish(self, data: dict[str, str]) -> None:
        self._publisher.publish(data, transient={"display_id": self._display_id}, update=self._shown)


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
        rss_bytes, peak_bytes = (None, None) if self._waiting is None else self._waiting.peek()
        left = format_bytes(psutil.virtual_memory().available)
        return (
            f"memory {format_mib(rss_bytes)} MiB | peak since the last command "
            f"{format_mib(peak_bytes)} MiB | system memory left {left}"
        )

    def _wait(self) -> None:
        if self._waiting is None and self._prompt is not None:
            self._waiting = Meter(trim=False)
            self._waiting.__enter__()

    def _end_waiting(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.__exit__(None, None, None)

    def _line(self) -> TerminalLine | NotebookLine | None:
        if hasattr(self._shell, "kernel"):
            return NotebookLine(self._shell.display_pub)
        seen = sys.stdout.isatty() and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        return TerminalLine(sys.stderr) if seen else None


class _LongCommand:
    """The thread that shows one command, from some seconds after its beginning to its end."""

    def __init__(self, meter: Meter, line: TerminalLine | NotebookLine, options: Options) -> None:
        self._meter = meter
        self._line = line
        self._options = options
        self._ended = threading.Event()
        self._start_s = time.monotonic()
        # In the command's context: a kernel finds the cell that a display belongs to by it.
        run: Callable[[], None] = self._run
        target = contextvars.copy_context().run
        self._thread = threading.Thread(target=target, args=(run,), name="imu-live", daemon=True)
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
        rss_bytes, peak_bytes = self._meter.peek()
        self._line.show(
            f"{time.monotonic() - self._start_s:.1f} s, memory {format_mib(rss_bytes)} MiB, "
            f"peak so far {format_mib(peak_bytes)} MiB"
        )
