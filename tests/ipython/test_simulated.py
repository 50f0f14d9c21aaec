"""The extension in a real shell that callgrind runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_imu.core.counters.callgrind.command import USUAL_CACHES, callgrind_command, find_valgrind

pytest.importorskip("IPython", reason="needs_ipython: pip install 'pytest-imu[ipython]'")

DRIVER = """
import contextlib, io, json
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

config = Config()
config.InteractiveShell.colors = "nocolor"
config.HistoryManager.enabled = False
shell = InteractiveShell.instance(config=config)
said = []
count = "n = bytes(2**20).count(1)"
for command in ("%load_ext ipython_hooks\\n%imu", count, "%imu perf page-faults", "1"):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        shell.run_cell(command, store_history=True)
    said.append(out.getvalue().splitlines())
print(json.dumps([said, shell.user_ns["imu_history"][0]]))
"""


@pytest.mark.needs_valgrind
def test_shell_under_callgrind(tmp_path: Path) -> None:
    """It counts cache misses by itself, says with what, and that memory means nothing there."""
    command = callgrind_command(
        find_valgrind()[0],
        python=[sys.executable, "-c", DRIVER],
        caches=USUAL_CACHES,
        out_folder=tmp_path,
    )
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
    [[load, *status], counted, perf, uncounted], row = json.loads(done.stdout.splitlines()[-1])
    source = f"callgrind, simulated caches {USUAL_CACHES}"
    assert f"counting cache-misses in each command with {source}; %imu perf off stops it" == load
    assert {"peaks: none (simulated run)", f"counting: cache-misses ({source})"} <= set(status)
    report, count = counted
    assert report.startswith("'n = bytes(2**20).count(1)' n/a in ")
    assert report.endswith(": simulated run")
    assert count.startswith("callgrind value for cache-misses ")
    assert count.endswith(" in all, simulated")
    assert int(count.split()[4].replace(",", "")) > 2**20 / 64
    assert perf[0].startswith(f"counting page-faults in each command with {source}; ")
    assert "callgrind value for page-faults: n/a, not supported by callgrind" == perf[1]
    assert not any("value for" in line for line in uncounted)
    assert "none" == row["source"]
    assert row["cache-misses"] == int(count.split()[4].replace(",", ""))
