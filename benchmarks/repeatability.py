"""How well simulated counts repeat: python benchmarks/repeatability.py [--runs N] [--caches TEXT].

Runs one suite again and again under `pytest --imu-simulate`, after a first run that is not counted, and
prints for each event how far a test's counts lie apart: in the median test, and in the worst. Nothing
around the tests changes in between; that is what the numbers are about. With `--first` each run has a
folder of its own without byte code, as a fresh checkout has.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

EVENTS = ("instructions", "cache-misses", "L1-dcache-load-misses")
SUITE = """
import json
import random
import re

import numpy as np
import pytest

SIDE = 1000


@pytest.fixture(scope="module")
def matrix():
    return np.ones((SIDE, SIDE))


@pytest.fixture(scope="module")
def table():
    return {f"key {number}": list(range(number % 10)) for number in range(4_000)}


def test_nothing():
    pass


def test_rows(matrix):
    assert sum(matrix[index].sum() for index in range(40)) == 40 * SIDE


def test_columns(matrix):
    assert sum(matrix[:, index].sum() for index in range(40)) == 40 * SIDE


def test_small_arrays():
    array = np.arange(1000.0)
    for _ in range(60):
        array = np.sqrt(array * 1.5 + 2.0)
    assert array.sum() > 0


def test_ints():
    assert sum(number * number for number in range(3_000)) > 0


def test_small_dict():
    assert len({number: str(number) for number in range(500)}) == 500


def test_large_dict():
    made = {f"key {number}": number for number in range(6_000)}
    assert sum(made[f"key {number}"] for number in range(0, 6_000, 7)) > 0


def test_lists():
    rows = [[inner for inner in range(50)] for _ in range(200)]
    assert sum(map(sum, rows)) > 0


def test_strings():
    parts = [f"{number:05d}-{number * 3}" for number in range(3_000)]
    assert len(",".join(parts).split(",")) == 3_000


def test_sorting():
    source = random.Random(3)
    values = [source.random() for _ in range(8_000)]
    assert sorted(values)[0] == min(values)


def test_json():
    data = {f"name{number}": {"id": number, "tags": ["a", "b"]} for number in range(300)}
    assert json.loads(json.dumps(data)) == data


def test_regex():
    text = " ".join(f"user{number}@example{number % 7}.org" for number in range(800))
    assert len(re.findall(r"[\\w.]+@[\\w.]+\\.org", text)) == 800


def test_fixture(table):
    assert sum(map(len, table.values())) > 0


def test_file(tmp_path):
    target = tmp_path / "lines.txt"
    target.write_text("\\n".join(map(str, range(2_000))))
    assert sum(map(int, target.read_text().splitlines())) == 1_999_000
"""

Counts = Mapping[str, Mapping[str, float]]
"""By test, and by event."""


def run(folder: Path, *, caches: str | None) -> Counts:
    """Return what each test of the folder counted in one simulated run."""
    written = folder.parent / "run.json"  # a new file beside the tests would change what is counted
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "--imu-simulate=all"]
    command += [f"--imu-perf={','.join(EVENTS)}", f"--imu-json={written}"]
    command += [] if caches is None else ["-o", f"imu_caches={caches}"]
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=environment)
    tests = json.loads(written.read_text(encoding="ascii"))["tests"]
    return {
        test["nodeid"].partition("::")[2]: {
            event: test["phases"]["call"]["counters"][event]["value"] for event in EVENTS
        }
        for test in tests
    }


def runs_of(options: argparse.Namespace) -> Iterator[Counts]:
    """Give the counts of each run."""
    with tempfile.TemporaryDirectory() as name:
        for number in range(options.runs + 1):
            folder = Path(name) / (f"suite{number:03}" if options.first else "suite")
            if not folder.exists():
                folder.mkdir()
                (folder / "pytest.ini").write_text("[pytest]\n", encoding="ascii")
                (folder / "test_counted.py").write_text(SUITE, encoding="ascii")
            counted = run(folder, caches=options.caches)
            if number:
                yield counted


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="runs that are compared (default 10)")
    parser.add_argument("--caches", help="as imu_caches has them")
    parser.add_argument("--first", action="store_true", help="each run is the first in its folder")
    counted = list(runs_of(parser.parse_args()))
    for event in EVENTS:
        apart = {}
        for test in counted[0]:
            values = [counts[test][event] for counts in counted]
            apart[test] = 100 * (max(values) - min(values)) / min(values)
        worst = max(apart, key=lambda test: apart[test])
        middle = statistics.median(apart.values())
        print(f"{event:<22} median test {middle:.2f} %, worst {apart[worst]:.2f} % ({worst})")


if __name__ == "__main__":
    main()
