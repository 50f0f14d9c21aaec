"""IPython in a real terminal, 120 columns by 30 rows: the report, the toolbar and the status line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect  # type: ignore[import-untyped]  # it has no types
import pyte  # it draws what the shell sends, as a terminal would
import pytest

pytestmark = pytest.mark.needs_fork
COLUMNS, ROWS = 120, 30
TIMEOUT_S = 120
SHELL = (
    *(sys.executable, "-m", "IPython", "--no-banner", "--no-confirm-exit", "--colors=NoColor"),
    "--HistoryManager.enabled=False",
)
TOOLBAR = re.compile(
    r"memory (\d+\.\d) MiB \| peak since the last command \+(\d+\.\d) MiB"
    r" \| system memory left \d+\.\d [MGT]iB"
)
STATUS = re.compile(r"(\d+\.\d) s, memory (\d+\.\d) MiB, peak so far \+(\d+\.\d) MiB")
SOON = "%config ImuMagics.live_after_s = 0.2"
"""It comes last where nothing may be drawn: on a busy machine any command may take as long."""
USE_LIVE = SOON, "%imu live on"
WAIT = "open('go').read()"
"""What a command waits with until `let_go()`: its line is there to be seen, however slow the machine."""
GROW_ON_REQUEST = (
    "import threading; threading.Thread(daemon=True, target=lambda: "
    "[exec(open('requests').read(), globals()) for _ in range(2)]).start()"
)


class AnsweringScreen(pyte.Screen):
    """A screen that answers when it is asked where its cursor is; prompt_toolkit asks."""

    answer: Callable[[str], object]

    def write_process_input(self, data: str) -> None:
        """Send the terminal's answer to the program."""
        self.answer(data)


class Terminal:
    """A shell in a pseudo-terminal, and the screen that a person would see."""

    def __init__(self, folder: Path) -> None:
        self._go = folder / "go"
        os.mkfifo(self._go)
        environment = dict(
            os.environ, TERM="xterm", IPYTHONDIR=str(folder / "ipython"), LC_ALL="C.UTF-8"
        )
        self._child: Any = pexpect.spawn(  # Any: pexpect has no types
            SHELL[0],
            list(SHELL[1:]),
            cwd=str(folder),
            env=environment,
            dimensions=(ROWS, COLUMNS),
            timeout=TIMEOUT_S,
            # A run in the background has Ctrl-C ignored, and its children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self._child.delaybeforesend = None
        self._screen = AnsweringScreen(COLUMNS, ROWS)
        self._screen.answer = self._child.send
        self._stream = pyte.ByteStream(self._screen)
        self._prompts = 0
        self.sent = ""
        """All that the shell ever sent."""

    def close(self) -> None:
        """End the shell."""
        self._child.kill(signal.SIGKILL)
        self._child.wait()
        self._child.close()

    def rows(self) -> list[str]:
        """Return what stands on the screen now."""
        return [row.rstrip() for row in self._screen.display]

    def text(self) -> str:
        """Return what stands on the screen now, its rows joined: the shell wraps at the last column."""
        return "".join(self._screen.display)

    def results(self) -> list[str]:
        """Return the values that stand behind an `Out[n]:` on the screen."""
        return [row.partition(": ")[2] for row in self.rows() if row.startswith("Out[")]

    def until(self, is_there: Callable[[], object]) -> None:
        """Read what the shell sends until something is on the screen."""
        end_s = time.monotonic() + TIMEOUT_S
        while not is_there():
            try:
                sent = self._child.read_nonblocking(4096, timeout=max(0, end_s - time.monotonic()))
            except (pexpect.TIMEOUT, pexpect.EOF):
                pytest.fail("\n".join(["it never came; there is only:", *self.rows()]))
            self.sent += sent.decode(errors="replace")
            self._stream.feed(sent)

    def until_row(self, text: str) -> None:
        """Read until this is a row of the screen."""
        self.until(lambda: text in self.rows())

    def until_prompt(self) -> None:
        """Read until the next prompt waits for input."""
        self._prompts += 1
        prompt = f"In [{self._prompts}]:"
        # The application has drawn it, and the cursor stands behind it.
        self.until(lambda: self._screen.display[self._screen.cursor.y].rstrip() == prompt)

    def type(self, line: str) -> None:
        """Type a line, without waiting for what it does."""
        self._child.send(line + "\r")

    def let_go(self) -> None:
        """Let the command that waits go on."""
        self._go.write_text("", encoding="ascii")

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._child.sendintr()

    def run(self, *lines: str) -> None:
        """Type lines, each at a prompt of its own, and wait for the prompt after the last one."""
        for line in lines:
            self.type(line)
            self.until_prompt()

    def until_toolbar(self, is_right: Callable[[float, float], object]) -> tuple[float, float]:
        """Read until the toolbar's memory and peak are right, and return them."""

        def shown() -> tuple[float, float] | None:
            match = TOOLBAR.fullmatch(self.rows()[-1])
            return None if match is None else (float(match[1]), float(match[2]))

        self.until(lambda: (found := shown()) and is_right(*found))
        found = shown()
        assert found is not None
        return found


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """Return a terminal in which a fresh shell has loaded the extension."""
    shell = Terminal(tmp_path)
    try:
        shell.until_prompt()
        shell.run("%load_ext ipython_hooks")
        yield shell
    finally:
        shell.close()


@pytest.mark.needs_kernel_peaks
def test_report_after_a_command(terminal: Terminal) -> None:
    """What a command used stands in one line under it, and what it peaked above that."""
    terminal.run("kept = b'x' * (64 * 2**20); len(kept + b'y')")
    report = re.search(
        r"'kept.*y'\)' used (\S+) MiB RAM \(kept 64\.\d\) in \d\.\d\ds, "
        r"peaked (\S+) MiB above current, total RAM usage \d+\.\d MiB",
        terminal.text(),
    )
    assert report is not None, terminal.rows()
    assert [64.0, 64.0] == [pytest.approx(float(number), abs=0.5) for number in report.groups()]


@pytest.mark.needs_kernel_peaks
def test_lines_of_a_cell(terminal: Terminal) -> None:
    """A cell of `%%imu lines` is typed line by line, ends with empty ones, and has its table."""
    for line in ("%%imu lines", "kept = b'x' * (64 * 2**20)", "len(kept + b'y')", ""):
        terminal.type(line)
    terminal.run("")
    assert str(64 * 2**20 + 1) in terminal.results()
    rows = [row.split(maxsplit=4) for row in terminal.rows()]
    [first] = [row for row in rows if row[3:] == ["2", "kept = b'x' * (64 * 2**20)"]]
    [second] = [row for row in rows if row[3:] == ["3", "len(kept + b'y')"]]
    assert [64, 64, 0, 64] == [pytest.approx(float(one), abs=0.5) for one in first[:2] + second[:2]]


def test_load_says_how_to_stop(terminal: Terminal) -> None:
    """Loading says in one line how to stop it, and is not reported itself."""
    assert [
        "In [1]: %load_ext ipython_hooks",
        "reporting after each command; %imu off stops it, %imu? explains the rest",
        "In [2]:",
    ] == [row for row in terminal.rows() if row]


@pytest.mark.needs_kernel_peaks
def test_toolbar_changes_while_the_prompt_waits(terminal: Terminal, tmp_path: Path) -> None:
    """The toolbar follows a background thread that takes 200 MiB and frees them; no key is pressed."""
    requests = tmp_path / "requests"
    os.mkfifo(requests)
    terminal.run("%imu live on", GROW_ON_REQUEST)
    first, _ = terminal.until_toolbar(lambda memory, _: memory > 0)
    requests.write_text("grown = b'x' * (200 * 2**20)", encoding="ascii")
    memory, peak = terminal.until_toolbar(lambda memory, _: memory > first + 150)
    assert [first + 200, 200] == pytest.approx([memory, peak], abs=2)
    requests.write_text("del grown", encoding="ascii")
    memory, peak = terminal.until_toolbar(lambda memory, _: memory < first + 50)
    assert [first, 200] == pytest.approx([memory, peak], abs=2)
    terminal.run("pass")
    _, peak = terminal.until_toolbar(lambda _, peak: peak < 50)
    assert 0 == pytest.approx(peak, abs=2)


@pytest.mark.parametrize("command", ["%imu live off", "%unload_ext ipython_hooks"])
def test_toolbar_goes_and_the_one_before_comes_back(terminal: Terminal, command: str) -> None:
    """`%imu live off` and unloading take the toolbar away, and a toolbar that was there returns."""
    mine = (
        "get_ipython().pt_app.refresh_interval = 7.5",
        "get_ipython().pt_app.bottom_toolbar = 'a toolbar of my own'",
    )
    terminal.run(*mine)
    terminal.until(lambda: terminal.rows()[-1] == "a toolbar of my own")
    terminal.run("%imu live on")
    terminal.until(lambda: TOOLBAR.fullmatch(terminal.rows()[-1]))
    terminal.run(command)
    terminal.until(lambda: terminal.rows()[-1] == "a toolbar of my own")
    terminal.run("get_ipython().pt_app.refresh_interval")
    assert "7.5" in terminal.results()


def test_no_toolbar_of_its_own_is_left(terminal: Terminal) -> None:
    """Where there was no toolbar, none is left."""
    terminal.run("%imu live on")
    terminal.until(lambda: TOOLBAR.fullmatch(terminal.rows()[-1]))
    terminal.run("%imu live off", "get_ipython().pt_app.bottom_toolbar is None")
    assert "True" in terminal.results()
    assert "" == terminal.rows()[-1]


def test_toolbar_of_somebody_else_stays(terminal: Terminal) -> None:
    """A toolbar that was set while the live one was on is not taken away with it."""
    terminal.run("%imu live on", "get_ipython().pt_app.bottom_toolbar = 'a newer toolbar'")
    terminal.run("%imu live off")
    terminal.until(lambda: terminal.rows()[-1] == "a newer toolbar")


@pytest.mark.needs_kernel_peaks
def test_status_line_of_a_long_command(terminal: Terminal) -> None:
    """A long command has a line in the last row with its time, memory and peak; it goes at the end."""
    terminal.run(*USE_LIVE)
    memory, _ = terminal.until_toolbar(lambda memory, _: memory > 0)
    terminal.type(f"kept = b'x' * (64 * 2**20); del kept; {WAIT}")
    shown: list[float] = []

    def freed() -> bool:
        status = STATUS.fullmatch(terminal.rows()[-1])
        shown[:] = map(float, status.groups()) if status else ()
        return bool(shown) and shown[1] < memory + 32

    terminal.until(freed)
    seconds, memory_now, peak = shown
    assert 0.2 <= seconds < TIMEOUT_S
    assert [memory, 64] == pytest.approx([memory_now, peak], abs=2)
    terminal.let_go()
    terminal.until_prompt()
    terminal.until(lambda: TOOLBAR.fullmatch(terminal.rows()[-1]))
    assert "peak so far" not in terminal.text()
    assert "above current" in terminal.text()


def test_status_line_goes_at_an_interrupt(terminal: Terminal) -> None:
    """Ctrl-C ends the command and takes its line away; the interrupted command is reported."""
    terminal.run(*USE_LIVE, "import time")
    terminal.type("while True: time.sleep(0.01)\r")  # Python loses what comes just before a long sleep
    terminal.until(lambda: STATUS.fullmatch(terminal.rows()[-1]))
    terminal.interrupt()
    terminal.until_prompt()
    terminal.until(lambda: TOOLBAR.fullmatch(terminal.rows()[-1]))
    assert "peak so far" not in terminal.text()
    assert "KeyboardInterrupt" in terminal.text()
    assert "; the command raised" in terminal.text()


def test_status_line_leaves_the_output_alone(terminal: Terminal) -> None:
    """What the command prints meanwhile, past the end of the screen too, comes out as it is."""
    terminal.run(*USE_LIVE)
    printing = f"print('row', n, end=' '); n in (5, 35) and {WAIT}; print('end')"
    terminal.type(f"for n in range(40): {printing}\r")
    for last_row in ("row 4 end", "row 34 end"):
        terminal.until_row(last_row)
        terminal.until(lambda: STATUS.fullmatch(terminal.rows()[-1]))
        terminal.let_go()
    terminal.until_prompt()
    printed = [row for row in terminal.rows() if row.startswith("row")]
    assert 20 < len(printed)
    assert [f"row {n} end" for n in range(40)][-len(printed) :] == printed
    assert "peak so far" not in terminal.text()


def test_status_line_is_not_in_what_a_command_captures(terminal: Terminal) -> None:
    """A command that redirects its standard error finds nothing in it, and its line is shown."""
    terminal.run(*USE_LIVE, "import contextlib, io; caught = io.StringIO()")
    terminal.type(f"with contextlib.redirect_stderr(caught): {WAIT}\r")
    terminal.until(lambda: STATUS.fullmatch(terminal.rows()[-1]))
    terminal.let_go()
    terminal.until_prompt()
    terminal.run("caught.getvalue()")
    assert "''" in terminal.results()


def test_status_line_leaves_a_debugger_alone(terminal: Terminal) -> None:
    """While the command reads single keys, as debuggers and editors do, nothing is drawn."""
    terminal.run("%imu live on", "import time, tty", SOON)
    terminal.run("tty.setcbreak(0); time.sleep(0.6)")
    assert "above current" in terminal.text()
    assert "peak so far" not in terminal.sent


def test_no_status_line_after_the_report_is_off(terminal: Terminal) -> None:
    """`%imu off` is not taken for a command that runs on and on; the toolbar stays."""
    terminal.run("%imu live on", "%imu off", SOON, "import time; time.sleep(0.6)")
    terminal.run("[t.name for t in __import__('threading').enumerate() if t.name.startswith('imu')]")
    assert "[]" in terminal.results()
    assert "peak so far" not in terminal.sent


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_no_status_line_where_a_stream_is_a_file(
    terminal: Terminal, tmp_path: Path, stream: str
) -> None:
    """With standard output or error in a file the status line is neither in it nor on the screen."""
    redirect = f"import sys; kept = sys.{stream}; sys.{stream} = open('caught', 'w')"
    terminal.run("%imu live on", redirect, SOON, "import time; time.sleep(0.6)")
    terminal.run(f"sys.{stream}.close(); sys.{stream} = kept")
    assert "so far" not in terminal.sent + (tmp_path / "caught").read_text(encoding="utf-8")


def test_nothing_live_where_there_is_no_terminal(tmp_path: Path) -> None:
    """In a pipe there is the report, and neither a toolbar nor a status line."""
    lines = ["%load_ext ipython_hooks", *USE_LIVE, "import time; time.sleep(0.6)", "exit()"]
    done = subprocess.run(
        [*SHELL, "--simple-prompt"],
        input="\n".join(lines) + "\n",
        env=dict(os.environ, IPYTHONDIR=str(tmp_path)),
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT_S,
    )
    assert "'import time; time.sleep(0.6)' used " in done.stdout
    assert ("", False) == (done.stderr, bool(re.search("\x1b|so far|peak since the last", done.stdout)))
