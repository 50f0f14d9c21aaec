"""`%imu why`: what is known of the last command, and which command shows its lines."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("IPython", reason="needs_ipython: pip install 'pytest-imu[ipython]'")

Shell = Callable[..., Any]
DRIVER = r"""
        def why(source):
            run(source)
            return run("%imu why")
        run('''
        def block(count):
            return bytearray(count * 2**20)
        class Shop:
            def make(self, count):
                self.held = block(count)
        shop = Shop()
        ''')
"""


def rounded(lines: list[str]) -> list[str]:
    """Return lines with whole numbers of MiB: a peak is exact to half of one."""
    return [re.sub(r"\d+\.\d\b", lambda found: f"{float(found[0]):.0f}", line) for line in lines]


@pytest.mark.needs_kernel_peaks
@pytest.mark.needs_malloc_trim
def test_what_is_known(shell: Shell) -> None:
    """It says what was kept and by which names, what passed, and how to see lines; nothing is run."""
    seen = shell(
        DRIVER
        + r"""
        seen["first"] = run("%unload_ext ipython_hooks\n%load_ext ipython_hooks")
        seen["nothing"] = run("%imu why")[0]
        seen["function"] = why("a = block(30); runs = globals().get('runs', 0) + 1")
        seen["runs"] = shell.user_ns["runs"]
        seen["again"] = run("%imu why")
        seen["method"] = why("shop.make(20)")
        seen["loop"] = why("for _ in range(2):\n    b = block(40)")
        seen["hidden"] = why("len(bytes(range(256)) * (4096 * 50))")
        seen["del"] = why("del a")
        seen["quiet"] = why("c = 1")
        seen["awaits"] = why("import asyncio\nasync def later(): return block(10)\nd = await later()")
        seen["raises"] = why("e = [block(9)] and 1/0")
        seen["syntax"] = why("x = = 3")
    """
    )
    assert "no command was measured yet" == seen["nothing"]
    assert re.fullmatch(r"In \[\d+\]: 'a = block\(30\); .*' took \d\.\d\ds", seen["function"][0])
    assert [
        "kept 30 MiB: a 30",
        "needed 30 MiB at its peak; all that it needed is still there",
        "which statement it was: put %%imu lines above them",
    ] == rounded(seen["function"][1:4])
    assert "which line in block: %imu lines -f block a = block(30); runs" in seen["function"][4]
    assert 1 == seen["runs"]
    assert seen["function"] == seen["again"]
    assert "which line in shop.make: %imu lines -f shop.make shop.make(20)" == seen["method"][-1]
    assert "which line in block: put %%imu lines -f block above it" == seen["loop"][-1]
    needed = "needed 50 MiB at its peak; 50 of them were gone at its end"
    assert ["kept next to nothing", needed] == rounded(seen["hidden"][1:3])
    expected = "which part of it: write its parts as statements of their own, below %%imu lines"
    assert expected == seen["hidden"][-1]
    assert ["gave back 30 MiB"] == rounded(seen["del"][1:2])
    quiet = ["kept next to nothing", "needed next to nothing at its peak"]
    assert [quiet[1], quiet] == [seen["del"][2], seen["quiet"][1:]]
    assert 3 == len(seen["del"])
    assert "put %%imu lines -f block -f later above it" in seen["awaits"][-1]
    assert "it raised: %imu vars shows what the error keeps alive" in seen["raises"]
    assert quiet == [re.sub(r";.*", "", line) for line in seen["syntax"][1:3]]


def test_what_is_not_known(shell: Shell) -> None:
    """Where memory could not be read it says why; children and imports are said."""
    seen = shell(
        DRIVER
        + r"""
        seen["children"] = why("import subprocess, sys\nsubprocess.run([sys.executable, '-c', ''])")
        from pytest_imu.core.memory import source as memory
        def broken():
            raise OSError("no /proc today")
        memory.peak_source = broken
        seen["broken"] = why("a = 1")
    """
    )
    assert "had child processes: their memory is not in these numbers" in seen["children"]
    assert ["n/a: memory could not be read: OSError: no /proc today"] == seen["broken"][1:]


def test_names_are_only_text(shell: Shell) -> None:
    """Control characters in a name are shown, and never sent to the terminal."""
    seen = shell(
        DRIVER
        + r"""
        seen["red"] = why("globals()['\\x1b[31mred'] = bytearray(50 * 2**20)")
    """
    )
    assert not any("\x1b" in line for line in seen["red"])
    assert any("red" in line for line in seen["red"])
