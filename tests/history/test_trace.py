"""A run over time: Trace Event files that Perfetto takes, and files that `mprof plot` draws."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imu.__main__ import main
from pytest_imu.core.model import Measurement, Start
from running import run, run_here

if TYPE_CHECKING:
    from tests.history.conftest import Documents

MIB = 2**20
START = Start(1_800_000_000_000_000_000, 5_000_000_000)
Event = dict[str, Any]


def timed(
    documents: Documents, nodeid: str, *, at_s: float = 0, worker: str | None = None, **more: Any
) -> dict[str, Any]:
    """Return a test that began so many seconds after the first: setup 1 s, call 2 s, teardown 0.5 s."""
    ahead_ns = round(at_s * 10**9)
    begin_ns = START.clock_ns + ahead_ns

    def phase(begin_ns: int, seconds: int, before: int, highest: int, after: int) -> dict[str, Any]:
        return Measurement(
            before_bytes=before * MIB,
            after_bytes=after * MIB,
            rss_peak_bytes=highest * MIB,
            duration_ns=seconds * 10**9,
            started_ns=begin_ns,
            source="kernel",
        ).to_dict()

    call = phase(begin_ns + 10**9, 2, 20, 90, 30)
    return {
        **documents.test(nodeid),
        "worker": worker,
        "started_at": Start(START.wall_ns + ahead_ns, begin_ns).text,
        "started_ns": begin_ns,
        "ended_ns": begin_ns + 3_500_000_000,
        "phases": {"setup": phase(begin_ns, 1, 10, 20, 20), "call": call, "teardown": None},
        "blocks": [{"name": "load it", **call}],
        **more,
    }


def traced(capsys: pytest.CaptureFixture[str], folder: Path, *names: str) -> list[Event]:
    """Write a trace file and return its events."""
    output = folder / "trace.json"
    assert 0 == main(["trace", *names, "-o", str(output)])
    assert f"{output}: " in capsys.readouterr().out
    document = json.loads(output.read_text(encoding="ascii"))
    assert {"displayTimeUnit": "ms"}.items() <= document.items()
    events: list[Event] = document["traceEvents"]
    for event in events:
        check_event(event)
    return events


def check_event(event: Mapping[str, Any]) -> None:
    """Assert that an event has the keys, and the types, that the Trace Event format asks for."""
    assert {"pid", "tid", "ph", "name", "args"} <= event.keys()
    assert {int} == {type(event["pid"]), type(event["tid"])}
    assert isinstance(event["name"], str)
    match event["ph"]:
        case "M":
            assert event["name"] in ("process_name", "thread_name", "process_sort_index")
        case "X":
            assert event["ts"] >= 0 <= event["dur"]
            assert isinstance(event["cat"], str)
        case "C":
            assert event["ts"] >= 0
            assert {"MiB"} == event["args"].keys()
            assert isinstance(event["args"]["MiB"], (int, float))
        case _:
            pytest.fail(f"an event of an unknown kind: {event}")


def test_a_track_for_each_worker(
    documents: Documents, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Each worker is a process with its tests, their phases and blocks in them, and its RSS."""
    budget = documents.budget(reason="it is over")
    path = documents.write(
        "run.json",
        timed(documents, "a", worker="gw10"),
        timed(documents, "b", at_s=0.5, worker="gw2", budgets=[budget]),
    )
    events = traced(capsys, tmp_path, path)

    names = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert {1: "gw2", 2: "gw10"} == names
    spans = [event for event in events if event["ph"] == "X" and event["pid"] == 1]
    assert [
        ("b", 500_000, 3_500_000),
        ("setup", 500_000, 1_000_000),
        ("call", 1_500_000, 2_000_000),
        ("teardown", 3_500_000, 500_000),
        ("load it", 1_500_000, 2_000_000),
    ] == [(span["name"], span["ts"], span["dur"]) for span in spans]
    about = spans[0]["args"]
    assert ("passed", 70.0, 10.0) == tuple(about[key] for key in ("outcome", "peak_mib", "kept_mib"))
    assert ["it is over"] == [verdict["reason"] for verdict in about["verdicts"]]
    readings = [
        (event["ts"], event["args"]["MiB"])
        for event in events
        if event["ph"] == "C" and event["pid"] == 2
    ]
    expected = [
        (0, 10),
        (500_000, 20),
        (1_000_000, 20),
        (1_000_000, 20),
        (2_000_000, 90),
        (3_000_000, 30),
    ]
    assert expected == readings


def test_runs_of_several_files_have_tracks_of_their_own(
    documents: Documents, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Though their workers have one name."""
    paths = [
        documents.write(f"{name}.json", timed(documents, name, at_s=at_s))
        for name, at_s in (("one", 0), ("two", 1))
    ]
    events = traced(capsys, tmp_path, *paths)
    names = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert [1, 2] == sorted(names)
    pids = {event["name"]: event["pid"] for event in events if event["name"] in ("one", "two")}
    assert {1, 2} == {*pids.values()}


def test_samples_are_drawn(
    documents: Documents, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What --imu-timeline sampled is in the curves, the children in one of their own."""
    at_ns = START.clock_ns + 1_250_000_000
    timeline = {"interval_ns": 10**7, "rss": [[at_ns, 50 * MIB]], "children": [[at_ns, 7 * MIB]]}
    path = documents.write("run.json", timed(documents, "a", timeline=timeline))
    curves = [event for event in traced(capsys, tmp_path, path) if event["ph"] == "C"]
    at_that_time = [(one["name"], one["args"]["MiB"]) for one in curves if one["ts"] == 1_250_000]
    assert [("RSS", 50), ("RSS of children", 7)] == at_that_time


def test_tests_without_a_start_are_left_out(
    documents: Documents, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What was killed, or comes from an older version, is counted; with nothing else it is an error."""
    path = documents.write("run.json", timed(documents, "a"), documents.test("b"))
    output = tmp_path / "trace.json"
    assert 0 == main(["trace", path, "-o", str(output)])
    said = capsys.readouterr()
    assert f"{output}: 1 test\n" == said.out
    assert "pytest-imu: 1 test left out: when it began is not known\n" == said.err
    old = documents.write("old.json", documents.test("b"))
    assert 2 == main(["trace", old, "-o", str(output)])
    assert "pytest-imu: there is no test to draw\n" in capsys.readouterr().err


def test_output_must_be_one_of_two(documents: Documents, capsys: pytest.CaptureFixture[str]) -> None:
    """The name's end says which format; the file that is read is not overwritten."""
    path = documents.write("run.json", timed(documents, "a"))
    with pytest.raises(SystemExit):
        main(["trace", path, "-o", "trace.svg"])
    expected = "expected a file whose name ends in .json (for Perfetto) or .dat (for mprof plot)"
    assert f"invalid value 'trace.svg': {expected}" in capsys.readouterr().err
    assert 2 == main(["trace", path, "-o", path])
    assert "expected another file to write than those to read" in capsys.readouterr().err


def test_mprof_lines(documents: Documents, tmp_path: Path) -> None:
    """One process has a curve and its tests; of several each has a curve."""
    path = documents.write("run.json", timed(documents, "a.py::test[x y \u00e9]"))
    output = tmp_path / "run.dat"
    main(["trace", path, "-o", str(output)])
    assert [
        "CMDL pytest",
        "MEM 10.000000 1800000000.0000",
        "MEM 20.000000 1800000000.5000",
        "MEM 20.000000 1800000001.0000",
        "MEM 20.000000 1800000001.0000",
        "MEM 90.000000 1800000002.0000",
        "MEM 30.000000 1800000003.0000",
        "FUNC a.py::test[x_y_\\xe9] 10.0000 1800000000.0000 30.0000 1800000003.5000",
    ] == output.read_text(encoding="utf-8").splitlines()
    both = [timed(documents, name, worker=name) for name in ("gw0", "gw1")]
    main(["trace", documents.write("two.json", *both), "-o", str(output)])
    lines = output.read_text(encoding="utf-8").splitlines()
    assert {"CMDL pytest", "MEM 90.000000 1800000002.0000", "CHLD 1 90.000000 1800000002.0000"} < {
        *lines
    }


@pytest.mark.needs_matplotlib
def test_mprof_plots_it(documents: Documents, tmp_path: Path) -> None:
    """memory_profiler's own program draws the file of one process, and that of two."""
    both = [timed(documents, name, worker=name) for name in ("gw0", "gw1")]
    outputs, picture = [], tmp_path / "picture.png"
    for number, tests in enumerate((both[:1], both)):
        outputs.append(str(tmp_path / f"{number}.dat"))
        main(["trace", documents.write(f"{number}.json", *tests), "-o", outputs[-1]])
    command = [sys.executable, "-m", "mprof", "plot", "-o", str(picture), *outputs]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (0, b"\x89PNG") == (done.returncode, picture.read_bytes()[:4]), done.stderr


TIMED_SUITE = """
    import subprocess
    import sys

    import pytest

    @pytest.fixture
    def samples(request):
        return request.config.pluginmanager.get_plugin("imu-timeline")._timeline._running

    def wait_for(series, more):
        enough = series.length + more
        while series.length < enough:
            pass

    def test_holds(samples):
        held = bytearray(50 * 2**20)
        wait_for(samples._rss, 2)

    def test_child(samples):
        script = "held = bytearray(30 * 2**20); print(flush=True); input()"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen([sys.executable, "-c", script], **pipes) as child:
            child.stdout.readline()
            wait_for(samples._children, 2)
            child.communicate(b"end")
"""


@pytest.mark.parametrize("how", ["alone", "isolated"])
def test_timeline(
    pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str], tmp_path: Path, how: str
) -> None:
    """--imu-timeline samples the process and its children; the run log and the file draw the same."""
    pytester.makepyfile(test_it=TIMED_SUITE)
    more = ["--imu-isolate"] if how == "isolated" else []

    result = run(pytester, "--imu-timeline=5ms", "--imu-json=run.json", "--imu-log=run.jsonl", *more)
    tests = json.loads(pytester.path.joinpath("run.json").read_text(encoding="ascii"))["tests"]

    result.assert_outcomes(passed=2)
    holds, child = tests
    timeline = holds["timeline"]
    assert 5_000_000 == timeline["interval_ns"]
    assert [] == timeline["children"]
    call = holds["phases"]["call"]
    inside = [
        size
        for at_ns, size in timeline["rss"]
        if call["started_ns"] <= at_ns <= call["started_ns"] + call["duration_ns"]
    ]
    assert max(inside) - call["before_bytes"] > 45 * MIB
    times = [at_ns for at_ns, _ in timeline["rss"]]
    assert sorted(times) == times
    assert times[-1] <= holds["ended_ns"]
    assert max(size for _, size in child["timeline"]["children"]) > 30 * MIB
    names = [str(pytester.path / name) for name in ("run.json", "run.jsonl")]
    first, second = (traced(capsys, tmp_path, name) for name in names)
    assert first == second


@pytest.mark.parametrize("value", ["0", "-1s", "5m", "fast", "nan", "inf", "3601s", "0.5ms", ""])
def test_interval_at_fault(pytester: pytest.Pytester, value: str) -> None:
    """What is no interval is refused."""
    pytester.makepyfile(test_it=TIMED_SUITE)
    result = run_here(pytester, f"--imu-timeline={value}")
    expected = "expected an interval from 1ms to 3600s, such as 10ms or 0.5s"
    result.stderr.fnmatch_lines([f"ERROR: invalid value '{value}' for --imu-timeline: {expected}*"])
