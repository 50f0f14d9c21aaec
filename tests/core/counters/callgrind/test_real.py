"""callgrind counting for real: windows in fresh processes under valgrind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from pytest_imu.core.counters.callgrind.command import USUAL_CACHES, callgrind_command

EVENTS = ("instructions", "cache-misses", "cache-references", "L1-dcache-load-misses")
BLOCKS = ("words", "lists", "rows")

SCRIPT = """
import json, os, pathlib, subprocess, sys
from pytest_imu.core.counters.callgrind.counts import Callgrind
from pytest_imu.core.counters.callgrind.command import running_under_callgrind

source = Callgrind([*json.loads(sys.argv[2]), "page-faults"])

def words():
    table = {}
    for number in range(6000):
        key = f"key {number % 500}"
        table[key] = table.get(key, 0) + number
    return " ".join(f"{key}={value}" for key, value in table.items())

def lists():
    many = [sorted((number * 7919 + start) % 10007 for number in range(3000)) for start in range(4)]
    return sorted(sum(many, []), reverse=True)

table = memoryview(bytes(8 * 1000 * 1000)).cast("d", (1000, 1000))

def rows():
    return sum(table[row, column] for row in range(20) for column in range(1000))

def counted(body):
    window = source.open()
    body()
    window.end()
    return {one.event: one.value if one.reason is None else one.reason for one in window.read(1)}

def nested():
    lists()
    answers["inner"] = counted(lists)

answers = {"is callgrind": running_under_callgrind()}
os.chdir("/")
source.prepare()
answers["empty"] = counted(lambda: None)
for body in (words, lists, rows):
    answers[body.__name__] = counted(body)

def once():
    answers["outer"] = counted(nested)
    pid = os.fork()
    if pid == 0:
        status = 7 if counted(words)["instructions"].startswith("callgrind counts the process") else 1
        os._exit(status)
    answers["child"] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    preload = "import os; print(os.environ.get('LD_PRELOAD', ''))"
    answers["grandchild"] = subprocess.run(
        [sys.executable, "-c", preload], capture_output=True, text=True).stdout.strip()

if pathlib.Path(sys.argv[1]).name == "run 1":
    once()
answers["left"] = [one.name for one in pathlib.Path(sys.argv[1]).glob(f"callgrind.out.{os.getpid()}.*")]
print(json.dumps(answers))
sys.exit(5)
"""


def run_under_callgrind(folder: Path) -> dict[str, Any]:
    """Run the script above in a fresh process; its exit status and its streams are as without."""
    folder.mkdir()
    command = callgrind_command(
        shutil.which("valgrind") or "valgrind",
        python=[sys.executable, "-c", textwrap.dedent(SCRIPT), str(folder), json.dumps(EVENTS)],
        caches=USUAL_CACHES,
        out_folder=folder,
    )
    # What two runs hash differently they count differently.
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env=environment
    )
    assert (5, "") == (done.returncode, done.stderr)
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return what two fresh runs of the script counted."""
    folder = tmp_path_factory.mktemp("callgrind")
    return [run_under_callgrind(folder / name) for name in ("run 1", "run 2")]


@pytest.mark.needs_valgrind
def test_windows_count_only_themselves(answers: list[dict[str, Any]]) -> None:
    """An empty window is small next to a block, a nested one counts its own, the outer one both."""
    one = answers[0]
    assert one["is callgrind"]
    assert 0 < one["empty"]["instructions"] < 60_000
    assert one["lists"]["instructions"] > 1_000_000
    assert one["lists"]["instructions"] == pytest.approx(one["inner"]["instructions"], rel=0.02)
    assert 2 * one["inner"]["instructions"] == pytest.approx(one["outer"]["instructions"], rel=0.02)
    assert "not supported by callgrind" == one["lists"]["page-faults"]


@pytest.mark.needs_valgrind
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("event", EVENTS)
def test_runs_repeat(answers: list[dict[str, Any]], block: str, event: str) -> None:
    """The same block has the same counts in fresh processes, to within 1 %."""
    counts = [one[block][event] for one in answers]
    assert max(counts) - min(counts) <= 0.01 * min(counts), counts


@pytest.mark.needs_valgrind
def test_nothing_is_left(answers: list[dict[str, Any]]) -> None:
    """No dump stays, a forked child says why it counts nothing, and programs it starts run natively."""
    assert (7, "") == (answers[0]["child"], answers[0]["grandchild"])
    assert [[], []] == [one["left"] for one in answers]
