"""Who else is watching: each kind of tracer is seen and named, for real, in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

PRELUDE = """
import json, sys, threading
from pytest_imu.core.tracers import active_tracer
seen = []
"""
COVERED = "import coverage; c = coverage.Coverage(data_file=None); c.start()"
EPILOGUE = """
print(json.dumps(seen))
"""


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("seen.append(active_tracer())", None),
        ("import tracemalloc; seen.append(active_tracer())", None),
        ("import tracemalloc; tracemalloc.start(); seen.append(active_tracer())", "tracemalloc"),
        ("sys.settrace(lambda *_: None); seen.append(active_tracer()); sys.settrace(None)", "__main__"),
        (
            "threading.setprofile(print); seen.append(active_tracer()); threading.setprofile(None)",
            "print",
        ),
        (
            "import bdb; bdb.Bdb().runcall(lambda: seen.append(active_tracer()))",
            "bdb",
        ),
        (
            "import cProfile; cProfile.Profile().runcall(lambda: seen.append(active_tracer()))",
            "cProfile",
        ),
        (
            f"{COVERED}; seen.append(active_tracer()); c.stop()",
            "coverage",
        ),
        (
            f"import tracemalloc as t; t.start(); {COVERED}; seen.append(active_tracer()); c.stop()",
            "coverage, tracemalloc",
        ),
    ],
)
def test_named(run_python: Callable[[str], Any], script: str, expected: str | None) -> None:
    """Each is named once by the package that it comes from; where nothing traces there is no name."""
    assert [expected] == run_python(PRELUDE + script + EPILOGUE)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="needs sys.monitoring, of Python 3.12")
def test_monitoring_tools_are_named(run_python: Callable[[str], Any]) -> None:
    """A tool that uses sys.monitoring is known by the name that it gave itself."""
    script = 'sys.monitoring.use_tool_id(3, "their tool"); seen.append(active_tracer())'
    assert ["their tool"] == run_python(PRELUDE + script + EPILOGUE)
