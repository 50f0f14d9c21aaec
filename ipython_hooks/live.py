"""Memory while it happens: in the prompt's toolbar, and on one line or display during long commands."""

from __future__ import annotations

import contextvars
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import psutil

from pytest_imu.core.meter import Meter
from pytest_imu.core.units import format_bytes, format_mib

if TYPE_CHECKING:
    from ipython_hooks.session import Session

ERASE_LINE = "\r\x1b[2K"


class StatusLine(Protocol):
    """Something that shows one line, again and again, and takes it away."""

    def show(self, text: str) -> None:
        """Show the line in the place of the one before."""

    def remove(self) -> None:
        """Leave nothing behind."""


class TerminalLine:
    """The line at the cursor, as progress bars have it; nothing where nobody looks."""

    def __init__(self) -> None:
        self._shown = False

    def show(self, text: str) -> None:
        """Write over the line."""
        sys.stderr.write(ERASE_LINE + text)
        sys.stderr.flush()
        self._shown = True

    def remove(self) -> None:
        """Erase the line."""
        if self._shown:
            sys.stderr.write(ERASE_LINE)
            sys.stderr.flush()
            self._shown = False


class NotebookLine:
    """One display of the cell that runs, updated in its place, and emptied at the end."""

    def __init__(self) -> None:
        self._handle: Any = None  # Any: IPython's display functions are not typed

    def show(self, text: str) -> None:
        """Show the text, or update it."""
        from IPython.display import display  # noqa: PLC0415 - a kernel has it already

        if self._handle is None:
            self._handle = display({"text/plain": text}, raw=True, display_id=True)  # type: ignore[no-untyped-call]  # IPython is partly typed
        else:
            self._handle.update({"text/plain": text}, raw=True)

    def remove(self) -> None:
        """Leave an empty display, which takes no room."""
        if self._handle is not None:
            self._handle.update({"text/plain": "", "text/html": ""}, raw=True)
            self._handle = None


class Live:
    """Shows this process's memory while a command runs long and while the prompt waits."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waiting: Meter | None = None
        self._command: _LongCommand | None = None
        self._toolbar_before: tuple[Any, Any] | None = None

    def start(self) -> None:
        """Put the toolbar under the prompt, where there is a prompt and somebody who sees it."""
        application = self._prompt()
        if application is not None:
            self._toolbar_before = (application.bottom_toolbar, application.refresh_interval)
            application.bottom_toolbar = self.toolbar_text
            application.refresh_interval = self._session.options.live_interval_s
        self._wait()

    def stop(self) -> None:
        """Take everything away."""
        self.command_ends()
        self._end_waiting()
        application, before = self._prompt(), self._toolbar_before
        if application is not None and before is not None:
            application.bottom_toolbar, application.refresh_interval = before
        self._toolbar_before = None

    def command_begins(self, meter: Meter) -> None:
        """Show the command once it has run for a while."""
        self._end_waiting()
        line = self._line()
        if line is not None:
            options = self._session.options
            self._command = _LongCommand(
                meter, line, after_s=options.live_after_s, every_s=options.live_interval_s
            )
            self._command.start()

    def command_ends(self) -> None:
        """Take the command's line away, and watch the prompt again."""
        command, self._command = self._command, None
        if command is not None:
            command.stop()
        self._wait()

    def toolbar_text(self) -> str:
        """Return what stands in the toolbar; empty where it cannot be read."""
        rss_bytes, peak_bytes = (None, None) if self._waiting is None else self._waiting.peek()
        left = format_bytes(psutil.virtual_memory().available)
        return (
            f"memory {format_mib(rss_bytes)} MiB | peak since the last command "
            f"{format_mib(peak_bytes)} MiB | system memory left {left}"
        )

    def _wait(self) -> None:
        if self._waiting is None and self._prompt() is not None:
            self._waiting = Meter(trim=False)
            self._waiting.__enter__()

    def _end_waiting(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.__exit__(None, None, None)

    def _prompt(self) -> Any:
        application = getattr(self._session.shell, "pt_app", None)
        return application if sys.stdout.isatty() else None

    def _line(self) -> StatusLine | None:
        if self._session.in_kernel:
            return NotebookLine()
        return TerminalLine() if sys.stderr.isatty() else None


class _LongCommand:
    """The thread that shows one command, from some seconds after its beginning to its end."""

    def __init__(self, meter: Meter, line: StatusLine, *, after_s: float, every_s: float) -> None:
        self._meter = meter
        self._line = line
        self._after_s = after_s
        self._every_s = every_s
        self._ended = threading.Event()
        # In the command's context: a kernel finds the cell that a display belongs to by it.
        run: Callable[[], None] = self._run
        target = contextvars.copy_context().run
        self._thread = threading.Thread(target=target, args=(run,), name="imu-live", daemon=True)
        self._start_s = time.monotonic()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; it leaves nothing on the screen."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        if self._ended.wait(self._after_s):
            return
        try:
            while True:
                rss_bytes, peak_bytes = self._meter.peek()
                self._line.show(
                    f"{time.monotonic() - self._start_s:.0f} s, memory {format_mib(rss_bytes)} MiB, "
                    f"peak so far {format_mib(peak_bytes)} MiB"
                )
                if self._ended.wait(self._every_s):
                    return
        finally:
            self._line.remove()
