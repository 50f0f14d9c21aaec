"""Make the pictures of the README and of html.md, each from a real run: python docs/pictures.py.

It needs `pip install 'pytest-imu[docs]'`, and writes docs/pytest.svg and docs/ipython.svg. Where there
is a Chromium with its chromedriver, it writes docs/html_light.png and docs/html_dark.png too.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from IPython.terminal.interactiveshell import TerminalInteractiveShell
from rich.console import Console
from rich.text import Text
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
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
PAGE_SIZE = {"width": 900, "height": 1080, "deviceScaleFactor": 1, "mobile": False}


def run_of_pytest(*more: str) -> str:
    """Return what pytest prints, in colours; without its header, which tells of this machine."""
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", *TESTS, *more, "--color=yes", "--no-header", "-p", "imu"]
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
    tell(path)


def photograph(page: Path, chromium: str, chromedriver: str) -> None:
    """Write pictures of a page in a browser, of its largest test, for readers of both kinds."""
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(flag)
    with webdriver.Chrome(options=options, service=Service(chromedriver)) as browser:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PAGE_SIZE)
        for scheme in ("light", "dark"):
            media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
            browser.get(f"{page.as_uri()}#t0")
            browser.execute_script("scrollTo(0, 0)")
            path = DOCS / f"html_{scheme}.png"
            browser.save_screenshot(str(path))
            tell(path)


def tell(path: Path) -> None:
    """Print what was written."""
    print(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    draw("pytest", "pytest --imu", run_of_pytest())
    draw("ipython", "IPython", "\n".join(session_of_ipython()))
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if all(programs):
        with tempfile.TemporaryDirectory() as folder:
            run_of_pytest(f"--imu-html={folder}/imu.html")
            photograph(Path(folder, "imu.html"), *map(str, programs))
