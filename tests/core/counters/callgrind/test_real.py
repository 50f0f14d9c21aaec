"""callgrind counting for real: windows in fresh processes under valgrind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_imu.core.counters.callgrind.command import callgrind_command, parse_caches

CACHES = "I1=32768,8,64 D1=32768,8,64 LL=16777216,16,64"
"""Not the usual ones, to see that they are what is told of."""
EVENTS = ("instructions", "cache-misses", "cache-references", "L1-dcache-load-misses")
BLOCKS = ("words", "lists", "rows")

IMPORTS = """
import json, os, sys
from pytest_imu.core.counters.callgrind.counts import Callgrind
from pytest_imu.core.counters.callgrind.command import running_under_callgrind
"""
SCRIPT = """
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

def of_the_first():
    answers["outer"] = counted(nested)
    pid = os.fork()
    if pid == 0:
        status = 7 if counted(words)["instructions"].startswith("callgrind counts the process") else 1
        os._exit(status)
    answers["child"] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    answers["is program preloaded"] = os.spawnlp(os.P_WAIT, "sh", "sh", "-c", "exit ${LD_PRELOAD:+1}")

def of_the_second():
    from pytest_imu.core.meter import Meter
    from pytest_imu.core.counters.choice import simulated_caches, source_of_counts

    with Meter(counters=source_of_counts(["cache-misses", "page-faults"])) as meter:
        bytes(2**20).count(1)
    answers["caches"] = simulated_caches()
    answers["readings"] = [reading.to_dict() for reading in meter.measurement.counters]
    answers["memory"] = [meter.source, meter.measurement.reason, meter.peak_bytes, meter.peek()]

of_the_first() if sys.argv[1].endswith("1") else of_the_second()
dumps = f"callgrind.out.{os.getpid()}."
answers["left"] = [one for one in os.listdir(sys.argv[1]) if one.startswith(dumps)]
print(json.dumps(answers))
sys.exit(5)
"""


def run_under_callgrind(folder: Path) -> dict[str, Any]:
    """Run the script above in a fresh process; its exit status and its streams are as without."""
    folder.mkdir()
    command = callgrind_command(
        shutil.which("valgrind") or "valgrind",
        python=[sys.executable, "-c", IMPORTS + SCRIPT, str(folder), json.dumps(EVENTS)],
        caches=parse_caches(CACHES),
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
    # Compiled first: where only one of the runs compiles they have different heaps, and counts.
    subprocess.run([sys.executable, "-c", IMPORTS], check=True, timeout=120)
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
    assert (7, 0) == (answers[0]["child"], answers[0]["is program preloaded"])
    assert [[], []] == [one["left"] for one in answers]


@pytest.mark.needs_valgrind
def test_readings_say_that_they_are_simulated(answers: list[dict[str, Any]]) -> None:
    """Under callgrind it is what is chosen; it says in which caches, and memory is none."""
    assert CACHES == answers[1]["caches"]
    misses, faults = answers[1]["readings"]
    assert ["callgrind", "callgrind"] == [misses["source"], faults["source"]]
    assert misses["value"] > 2**20 / 64
    assert (None, "not supported by callgrind") == (faults["value"], faults["reason"])
    assert ["none", "simulated run", None, [None, None]] == answers[1]["memory"]
