"""Ten known cases through each tool that finds leaks: python benchmarks/leaks.py.

Each case runs in a process of its own for each tool, with the settings that its documentation begins
with. `pip install psleak pytest-memray pytest-leaks` first; what is not installed is n/a. Prints a table
in Markdown.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

CASES = '''
"""Ten bodies, and whether each leaks."""

import functools
import itertools
import os
import threading

KEPT, TABLE, OPENED, TALLY, END = [], {}, [], itertools.count(1000), threading.Event()


def clean():
    [str(number) for number in range(100)]


def one_object():
    KEPT.append(object())


def five_kb_in_c():
    KEPT.append(bytearray(5000))


def every_fourth_call():
    if next(TALLY) % 4 == 0:
        KEPT.append(bytearray(5000))


@functools.lru_cache(maxsize=4)
def cached(number):
    return str(number) * 1000


def bounded_cache():
    cached(next(TALLY))


def module_dict():
    number = next(TALLY)
    TABLE[number] = str(number) * 100


def descriptor():
    OPENED.append(os.open(os.devnull, os.O_RDONLY))


def thread():
    threading.Thread(target=END.wait, daemon=True).start()


def circle():
    found = [bytearray(5000)]
    found.append(found)


def traceback_held():
    try:
        raise ValueError
    except ValueError as error:
        KEPT.append(error)
'''
LEAKS = {
    "clean": False,
    "one_object": True,
    "five_kb_in_c": True,
    "every_fourth_call": True,
    "bounded_cache": False,
    "module_dict": True,
    "descriptor": True,
    "thread": True,
    "circle": False,
    "traceback_held": True,
}
TEST = "import pytest\n\nimport cases\n\n\n{marker}\ndef test_it():\n    cases.{case}()\n"
PSLEAK = """
import cases
from psleak import MemoryLeakTestCase


class TestLeaks(MemoryLeakTestCase):
    def test_it(self):
        self.execute(cases.{case})
"""
LIMIT_S = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A way to find leaks."""

    name: str
    distribution: str
    text: str
    arguments: tuple[str, ...]
    is_failure: Callable[[str], bool]
    """Whether what pytest printed says that there is a leak."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What the tool asks to be set."""


def by_pytest(
    name: str,
    *arguments: str,
    distribution: str,
    marker: str = "",
    says: str,
    text: str = TEST,
    environment: Mapping[str, str] | None = None,
) -> Tool:
    """Return a tool that is run by pytest, and says *says* of a leak."""
    return Tool(
        name=name,
        distribution=distribution,
        text=text.replace("{marker}\n", f"{marker}\n" if marker else ""),
        arguments=arguments,
        is_failure=lambda printed: says in printed,
        environment=environment or {},
    )


TOOLS = (
    by_pytest(
        "`--imu-leaks`",
        *("-p", "pytest_imu.plugin", "--imu-leaks=3:8"),
        distribution="pytest-imu",
        says="grows by",
    ),
    by_pytest(
        "psleak",
        distribution="psleak",
        says="psleak.",
        text=PSLEAK,
        environment={"PYTHONMALLOC": "malloc", "PYTHONUNBUFFERED": "1"},
    ),
    by_pytest(
        "pytest-memray",
        *("-p", "pytest_memray.plugin", "--memray"),
        distribution="pytest-memray",
        marker='@pytest.mark.limit_leaks("1 KB")',
        says="Test was allowed to leak",
    ),
    by_pytest(
        "pytest-leaks",
        *("-p", "pytest_leaks.plugin", "-R", "3:8"),
        distribution="pytest-leaks",
        says="leaked",
    ),
)


def verdict(tool: Tool, case: str) -> str:
    """Run a case; return whether it was called a leak, whether that is wrong, and how long it took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "cases.py").write_text(CASES, encoding="utf-8")
        (folder / "test_it.py").write_text(tool.text.format(case=case), encoding="utf-8")
        (folder / "pytest.ini").write_text("[pytest]\npythonpath = .\n", encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tool.arguments]
        begin_s = time.perf_counter()
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **tool.environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )
        seconds = time.perf_counter() - begin_s
    printed = done.stdout + done.stderr
    if done.returncode not in (0, 1):
        lines = [line for line in printed.splitlines() if "ERROR" in line] or ["pytest did not run"]
        print(f"{tool.name}: {lines[0].strip()}", file=sys.stderr)
        return "n/a"
    is_found = tool.is_failure(printed)
    if not is_found and "1 passed" not in printed:
        return "n/a"
    right = "" if is_found == LEAKS[case] else " **(wrong)**"
    return f"{'leak' if is_found else 'none'}{right}, {seconds:.1f} s"


def main() -> None:
    """Print the table."""
    installed = []
    for tool in TOOLS:
        try:
            installed.append(f"{tool.name} {importlib.metadata.version(tool.distribution)}")
        except importlib.metadata.PackageNotFoundError:
            installed.append(f"{tool.name} (n/a: not installed)")
    print(f"| case | {' | '.join(installed)} |")
    print(f"| --- |{' --- |' * len(TOOLS)}")
    for case in LEAKS:
        cells = [
            "n/a" if "n/a" in one else verdict(tool, case)
            for tool, one in zip(TOOLS, installed, strict=True)
        ]
        print(f"| {case.replace('_', ' ')} | {' | '.join(cells)} |", flush=True)
    print(json.dumps({"python": sys.version.split()[0], "leaks": sum(LEAKS.values())}))


if __name__ == "__main__":
    main()
