"""Make the pictures of a notebook, light and dark, from a real run: python docs/notebook_pictures.py.

It needs `pip install 'pytest-imu[lab]'`, Chromium and chromedriver. It writes notebook_light.png and
notebook_dark.png into docs/, or the folder that it is given, and prints what was seen, as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

DOCS = Path(__file__).parent
WIDTH, HEIGHT = 1000, 1500
TIMEOUT_S = 60
NOTEBOOK = "memory.ipynb"
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
CELLS = (
    "%load_ext ipython_hooks",
    "import numpy as np",
    "a = np.ones(40_000_000)",
    "small = 1",
    "b = a * 2",
    "d = np.add(a * b, b)",
    "del d",
    "1/0",
    "%imu history",
    "%imu plot",
)
RUN_ALL = "window.jupyterapp.commands.execute('notebook:run-all-cells')"
SAVE = "window.jupyterapp.commands.execute('docmanager:save').then(() => arguments[0]())"
RAN = """
const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')];
return prompts.length >= arguments[0] && prompts.every(one => /\\[\\d+\\]:/.test(one.textContent));
"""
COLOURS = """
const found = [...document.querySelectorAll('.jp-OutputArea-output div[style*="font-size"]')];
const line = found.find(one => one.textContent.includes(' peak '));
let behind = line;
while (/(rgba\\(.*, 0\\)|transparent)/.test(getComputedStyle(behind).backgroundColor)) {
  behind = behind.parentElement;
}
return [getComputedStyle(line).color, getComputedStyle(behind).backgroundColor];
"""
TEXT_OF_PLOT = "return getComputedStyle(document.querySelector('.jp-OutputArea-output svg text')).fill"


@contextlib.contextmanager
def jupyterlab(folder: Path, theme: str) -> Iterator[str]:
    """Start a server on a folder; give the address of the notebook in it."""
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    for about, choices in (
        ("themes", {"theme": THEMES[theme]}),
        ("notification", {"fetchNews": "false", "checkForUpdates": False}),
    ):
        (settings / f"{about}.jupyterlab-settings").write_text(json.dumps(choices), encoding="utf-8")
    token = secrets.token_hex()
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "IPYTHONDIR": str(folder / "ipython"),
        "PYTHONPATH": os.pathsep.join([str(DOCS.parent), os.environ.get("PYTHONPATH", "")]),
    }
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0"),
        *(f"--IdentityProvider.token={token}", "--LabApp.expose_app_in_browser=True"),
        f"--ServerApp.root_dir={folder}",
    ]
    server = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        said = ""
        for line in server.stderr or ():
            said += line
            if (found := re.search(r"(http://(?:localhost|127\.0\.0\.1):\d+)/lab", line)) is not None:
                yield f"{found[1]}/lab/tree/{NOTEBOOK}?token={token}"
                return
        sys.exit(f"jupyterlab did not start:\n{said}")
    finally:
        server.terminate()
        server.communicate()


@contextlib.contextmanager
def chromium() -> Iterator[Chrome]:
    """Give a browser that nobody sees."""
    options = ChromeOptions()
    for argument in ("headless=new", "no-sandbox", "disable-gpu", f"window-size={WIDTH},{HEIGHT}"):
        options.add_argument(f"--{argument}")
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    browser = Chrome(options=options, service=Service(shutil.which("chromedriver")))
    browser.set_script_timeout(TIMEOUT_S)
    try:
        yield browser
    finally:
        browser.quit()


def look(theme: str, picture: Path) -> dict[str, Any]:
    """Run the notebook in JupyterLab, draw it, and return what was seen."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        goes_on = {"tags": ["raises-exception"]}
        cells = [nbformat.v4.new_code_cell(source, metadata=goes_on) for source in CELLS]  # type: ignore[no-untyped-call]
        path = folder / NOTEBOOK
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)  # type: ignore[no-untyped-call]
        nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
        address = stack.enter_context(jupyterlab(folder, theme))
        browser = stack.enter_context(chromium())
        browser.get(address)
        waiting = WebDriverWait(browser, TIMEOUT_S)
        shows_cells = "return document.querySelectorAll('.jp-CodeCell').length >= arguments[0]"
        waiting.until(lambda _: browser.execute_script(shows_cells, len(CELLS)))
        kernel_idles = "return document.querySelector('[data-status=\"idle\"]') !== null"
        waiting.until(lambda _: browser.execute_script(kernel_idles))
        browser.execute_script("window.jupyterapp.shell.collapseLeft()")
        browser.execute_script(RUN_ALL)
        waiting.until(lambda _: browser.execute_script(RAN, len(CELLS)))
        seen = {
            "contrast": round(contrast(*map(channels, browser.execute_script(COLOURS))), 2),
            "plot": browser.execute_script(TEXT_OF_PLOT),
        }
        browser.save_screenshot(str(picture))
        browser.execute_async_script(SAVE)
        saved = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        rows = [
            (cell["id"], output["metadata"]["imu"])
            for cell in saved.cells
            for output in cell["outputs"]
            if "imu" in output.get("metadata", {})
        ]
        return seen | {
            "outputs": [len(cell["outputs"]) for cell in saved.cells],
            "rows": [
                [row["command"], round(row["used_mib"], 1), row["cell_id"] == id_] for id_, row in rows
            ],
        }


def channels(colour: str) -> tuple[float, ...]:
    """Return the red, green, blue and opacity of a colour as browsers write it, from 0 to 1."""
    numbers = [float(number) for number in re.findall(r"[\d.]+", colour)]
    red, green, blue = (number / 255 for number in numbers[:3])
    return red, green, blue, (*numbers[3:], 1.0)[0]


def contrast(text: tuple[float, ...], behind: tuple[float, ...]) -> float:
    """Return the contrast of two colours as WCAG defines it, from 1 to 21."""
    opacity = text[3]
    mixed = [
        opacity * one + (1 - opacity) * other for one, other in zip(text[:3], behind[:3], strict=True)
    ]
    lights = sorted([luminance(mixed), luminance(behind[:3])])
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(colour: list[float] | tuple[float, ...]) -> float:
    """Return how light a colour is, as WCAG defines it."""
    parts = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in colour]  # noqa: PLR2004 - WCAG's own numbers
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def main(folder: str = str(DOCS)) -> None:
    """Draw the notebook in both themes."""
    seen = {theme: look(theme, Path(folder) / f"notebook_{theme}.png") for theme in THEMES}
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
