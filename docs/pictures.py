"""Make the pictures of the README, each from a real run: python docs/pictures.py.

It needs `pip install 'pytest-imu[docs]'`, and writes docs/pytest.svg and docs/ipython.svg.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from IPython.terminal.interactiveshell import TerminalInteractiveShell
from rich.console import Console
from rich.text import Text
from traitlets.config import Config

DOCS = Path(__file__).parent
COLUMNS = 112
TESTS = ("pytest", "--imu", "examples/test_arrays.py")
CELLS = (
    "import numpy as np",
    "%load_ext ipython_hooks",
    "a = np.ones(10**7)",
    "b = a * 2",
    "np.sqrt(a, out=a);",
    "d = np.add(a * b, b)",
    "%imu limit 2GiB",
)


def run_of_pytest() -> str:
    """Return what pytest prints, in colours; without its header, which tells of this machine."""
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", *TESTS, "--color=yes", "--no-header", "-p", "imu"]
    done = subprocess.run(
        command, cwd=DOCS.parent, env=environment, capture_output=True, text=True, check=True
    )
    return f"$ {' '.join(TESTS)}\n{done.stdout}"


def session_of_ipython() -> Iterator[str]:
    """Give what a shell in a terminal shows for each command."""
    shell = TerminalInteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    for number, cell in enumerate(CELLS, start=1):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            shell.run_cell(cell, store_history=True)  # type: ignore[no-untyped-call]  # partly typed
        yield f"In [{number}]: {cell}\n{printed.getvalue()}"


def draw(name: str, title: str, shown: str) -> None:
    """Write a picture of a terminal with this in it."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(shown.rstrip()))
    path = DOCS / f"{name}.svg"
    console.save_svg(str(path), title=title)
    print(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    draw("pytest", "pytest --imu", run_of_pytest())
    draw("ipython", "IPython", "\n".join(session_of_ipython()))
