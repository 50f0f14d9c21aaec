"""The ancestor's lessons, line by line: copies, in place, the hidden temporary, rows and columns."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.needs_kernel_peaks,
    pytest.mark.needs_malloc_trim,
    pytest.mark.needs_numpy,
]

MIB = 2**20
BOUND_MIB = 0.5
INTS_MIB = 1_000_000 * (32 + 8) / MIB
"""A list that knows its length at once: one that grows leaves behind what it had before."""
LESSONS = """
import mmap
import numpy as np

def lessons(count):
    a = np.ones(count)
    b = a * 2
    c = np.sqrt(b)
    a *= 2
    np.sqrt(a, out=a)
    d = np.add(a * b, c)
    del d
    e = a * b
    e += c
    view = e[::2]
    copy = view.copy()
    del a, b, c, e, view, copy

def pages():
    table = np.frombuffer(mmap.mmap(-1, 64 * 2**20)).reshape(2048, 4096)
    row = table[0, :].sum()
    column = table[:, 1024].sum()
    again = table[:, 1024].sum()
    copied = table[:8].copy()
    return row + column + again + copied[0, 0]

def objects():
    ints = list(range(1_000, 1_001_000))
    return len(ints)
"""
RUN = """
import json, sys
sys.path.insert(0, sys.argv[1])
import lessons
from pytest_imu.why.lines import LineProfiler

lessons.lessons(8)  # what numpy needs once is in no line
lessons.pages()
with LineProfiler(lambda file: file == lessons.__file__) as profiler:
    lessons.lessons(2**23)
    lessons.pages()
    lessons.objects()
print(json.dumps(profiler.profile().to_dict()))
"""


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[float, float]]:
    """Return what each line of the lessons kept and needed, in MiB, by its text."""
    folder = tmp_path_factory.mktemp("lessons")
    Path(folder, "lessons.py").write_text(LESSONS, encoding="utf-8")
    command = [sys.executable, "-c", RUN, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    profile = json.loads(done.stdout)
    assert profile["is_exact"]
    return {one["text"]: (one["kept_bytes"] / MIB, one["peak_bytes"] / MIB) for one in profile["lines"]}


@pytest.mark.parametrize(
    ("text", "kept", "peak"),
    [
        ("a = np.ones(count)", 64, 64),
        ("b = a * 2", 64, 64),  # a copy, with a name of its own
        ("c = np.sqrt(b)", 64, 64),
        ("a *= 2", 0, 0),  # in place
        ("np.sqrt(a, out=a)", 0, 0),
        ("d = np.add(a * b, c)", 64, 128),  # the hidden temporary stands beside d
        ("del d", -64, 0),
        ("e = a * b", 64, 64),  # the same in two steps
        ("e += c", 0, 0),
        ("view = e[::2]", 0, 0),
        ("copy = view.copy()", 32, 32),
        ("del a, b, c, e, view, copy", -4 * 64 - 32, 0),
        ("row = table[0, :].sum()", 8 * 4096 / MIB, 8 * 4096 / MIB),  # 8 pages hold a row of 32 KiB
        ("column = table[:, 1024].sum()", 8, 8),  # and each number of a column has one of its own
        ("again = table[:, 1024].sum()", 0, 0),
        ("ints = list(range(1_000, 1_001_000))", INTS_MIB, INTS_MIB),
    ],
)
def test_lesson(lines: dict[str, tuple[float, float]], text: str, kept: float, peak: float) -> None:
    """Each line's numbers are the lesson's, to half a MiB."""
    assert [kept, peak] == pytest.approx(lines[text], abs=BOUND_MIB)
