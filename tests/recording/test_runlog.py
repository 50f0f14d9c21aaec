"""The run log: a line when a test starts and when it ends, whatever happens between them."""

from __future__ import annotations

import datetime as dt
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_imu.recording.runlog import RunLog
from running import run, run_here

BOUND_BYTES = 2**19
"""How far a peak may be off on Linux: 0.5 MiB."""

needs_full_device = pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="needs /dev/full, on which every write fails"
)
needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")


def read(path: Path) -> list[dict[str, Any]]:
    """Return a log's lines about tests; the one about the run stands before them."""
    run_line, *lines = [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]
    assert "run" == run_line["event"]
    return lines


def events(lines: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return each line's event and the name of its test."""
    return [(line["event"], line["nodeid"].rpartition("::")[2]) for line in lines]


@pytest.mark.needs_fork
@pytest.mark.needs_kernel_peaks
def test_last_line_names_the_test_that_was_killed(pytester: pytest.Pytester) -> None:
    """When the kernel kills pytest inside a test, all lines are in the file: each end with its outcome
    and bytes, and at last the start of the test that was killed.
    """
    pytester.makepyfile(
        """
        import os
        import signal

        def test_small():
            pass

        def test_big():
            b"x" * (40 << 20)

        def test_killer():
            os.kill(os.getpid(), signal.SIGKILL)

        def test_never():
            pass
        """
    )

    begin = dt.datetime.now(dt.UTC).replace(microsecond=0)
    result = run(pytester, "--imu-log=run.jsonl")
    end = dt.datetime.now(dt.UTC)
    lines = read(pytester.path / "run.jsonl")

    assert -signal.SIGKILL == result.ret
    assert [
        ("start", "test_small"),
        ("end", "test_small"),
        ("start", "test_big"),
        ("end", "test_big"),
        ("start", "test_killer"),
    ] == events(lines)
    common = ["pid", "time", "rss_bytes"]
    end_of_big = lines[3]
    assert ["event", "nodeid", "attempt", "worker", *common] == list(lines[-1])
    found = [
        "started_at",
        "started_ns",
        "ended_ns",
        "outcome",
        "failed_by_budget",
        "isolated",
        "phases",
        "teardown_kept_bytes",
        "blocks",
        "budgets",
        "why",
        "growth",
        "timeline",
    ]
    numbers = [*found, "peak_bytes", "delta_bytes"]
    assert ["event", "nodeid", "attempt", "worker", *numbers, *common] == list(end_of_big)
    assert ("passed", 1, None) == tuple(end_of_big[key] for key in ("outcome", "attempt", "worker"))
    assert abs(end_of_big["peak_bytes"] - 40 * 2**20) <= BOUND_BYTES
    assert abs(end_of_big["delta_bytes"]) <= BOUND_BYTES
    assert 1 == len({line["pid"] for line in lines} - {os.getpid()})
    times = [begin, *(dt.datetime.fromisoformat(line["time"]) for line in lines), end]
    assert sorted(times) == times
    assert all(line["rss_bytes"] > 2**20 for line in lines)


def test_every_outcome_has_its_end(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test ends with its outcome in a new file, in folders made for it where pytest was started,
    though a test goes elsewhere and closes what it did not open.
    """
    pytester.makepyfile(
        test_it="""
        import os

        import pytest

        def test_goes_and_closes(tmp_path):
            os.chdir(tmp_path)
            os.closerange(3, 100)

        def test_failed():
            assert False

        @pytest.mark.skip
        def test_skipped():
            pass

        @pytest.fixture
        def bad():
            raise ValueError

        def test_error(bad):
            pass

        @pytest.mark.xfail
        def test_xfailed():
            assert False
        """
    )
    log = pytester.mkdir("started_here") / "logs" / "run.jsonl"
    monkeypatch.chdir("started_here")
    log.parent.mkdir()
    log.write_text("of the run before", encoding="ascii")

    result = run(pytester, "-s", "--rootdir=..", "--imu-log=logs/run.jsonl", "../test_it.py")
    lines = read(log)

    result.assert_outcomes(passed=1, failed=1, skipped=1, errors=1, xfailed=1)
    outcomes = {
        "test_goes_and_closes": ("passed", True),
        "test_failed": ("failed", True),
        "test_skipped": ("skipped", False),
        "test_error": ("error", False),
        "test_xfailed": ("xfailed", True),
    }
    assert [(event, name) for name in outcomes for event in ("start", "end")] == events(lines)
    assert list(outcomes.values()) == [
        (line["outcome"], line["peak_bytes"] is not None) for line in lines if line["event"] == "end"
    ]


def test_lines_of_workers_do_not_mix(pytester: pytest.Pytester) -> None:
    """Two workers append to one file, and each line is whole, however long its id."""
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("number", range(60), ids=lambda number: f"{number}" * 4000)
        def test_it(number):
            pass
        """
    )

    result = run(pytester, "-p", "xdist", "-n", "2", "--imu-log=deep/er/run.jsonl")
    lines = read(pytester.path / "deep" / "er" / "run.jsonl")

    result.assert_outcomes(passed=60)
    assert 120 == len(lines)
    assert 120 == len({(line["event"], line["nodeid"]) for line in lines})
    assert {"gw0", "gw1"} == {line["worker"] for line in lines}


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("out/run.jsonl", id="folder removed"),
        pytest.param("/dev/full", id="device full", marks=needs_full_device),
    ],
)
@pytest.mark.parametrize("workers", [[], ["-p", "xdist", "-n", "2"]], ids=["alone", "workers"])
def test_failure_to_write(pytester: pytest.Pytester, path: str, workers: list[str]) -> None:
    """A log that cannot be written costs one line in the summary, not the run, in workers too."""
    pytester.makepyfile(
        """
        import shutil

        def test_removes():
            shutil.rmtree("out", ignore_errors=True)

        def test_next():
            pass
        """
    )

    result = run(pytester, f"--imu-log={path}", *workers)

    assert pytest.ExitCode.OK == result.ret
    result.assert_outcomes(passed=2)
    said = [line for line in result.outlines if "--imu-log" in line]
    assert 1 == len(said)
    assert said[0].startswith("--imu-log: a line could not be written: ")


@pytest.mark.parametrize("path", ["folder", "file/run.jsonl"])
def test_unwritable_path(pytester: pytest.Pytester, path: str) -> None:
    """A path that cannot be written is a usage error that names the option, before any test."""
    pytester.makepyfile("def test_ran(): open('ran', 'w').close()")
    pytester.mkdir("folder")
    pytester.path.joinpath("file").write_text("not a folder", encoding="ascii")

    result = run_here(pytester, f"--imu-log={path}")

    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines(
        ["ERROR: invalid value * for --imu-log: expected a file that can be written (*)"]
    )
    assert not pytester.path.joinpath("ran").exists()


def is_whole(line: str) -> bool:
    """Whether a line is JSON by itself."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder that holds 64 KiB and no more."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    command = [mount or "", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if not (mount and umount) or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("needs root, and the right to mount a small file system")
    yield folder
    subprocess.run([umount, str(folder)], check=True)


def test_disk_that_fills_and_empties_again(small_disk: Path) -> None:
    """What a full disk cuts off is taken back, and the lines that come once there is room are whole."""
    log = RunLog(small_disk / "run.jsonl", worker=None)
    log.begin_file({})
    (small_disk / "other").write_bytes(bytes(48 << 10))
    for number in range(200):
        log.started(f"full[{number}]", attempt=1)
    first_error = log.error
    (small_disk / "other").unlink()
    for number in range(20):
        log.started(f"emptied[{number}]", attempt=1)

    names = [line["nodeid"] for line in read(small_disk / "run.jsonl")]
    before = len(names) - 20
    assert 20 < before < 200
    assert [f"full[{number}]" for number in range(before)] == names[:before]
    assert [f"emptied[{number}]" for number in range(20)] == names[before:]
    assert isinstance(first_error, OSError)
    assert first_error is log.error


@pytest.mark.needs_fork
def test_short_write(in_fork: Callable[[Callable[[], object]], Any], tmp_path: Path) -> None:
    """A line of which the system takes a part only is taken back, wherever it was cut."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "run.jsonl"
    log = RunLog(path, worker=None)
    log.begin_file({})

    def write() -> str | None:
        log.begin_in_isolated_child()
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        for room in (1, 50, 100):
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, hard))
            log.started("cut off", attempt=1)
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            log.started(f"after {room}", attempt=1)
        return None if log.error is None else os.strerror(getattr(log.error, "errno", 0))

    assert os.strerror(errno.EFBIG) == in_fork(write)
    assert ["after 1", "after 50", "after 100"] == [line["nodeid"] for line in read(path)]


def test_half_a_line_of_a_killed_process_is_not_joined(tmp_path: Path) -> None:
    """Behind half a line of another process, which cannot be taken back, a new line begins."""
    path = tmp_path / "run.jsonl"
    log = RunLog(path, worker="gw0")
    log.begin_file({})
    log.started("whole", attempt=1)
    with path.open("ab") as file:
        file.write(b'{"event": "sta')

    log.started("next", attempt=1)
    log.started("last", attempt=1)

    lines = path.read_text(encoding="ascii").splitlines()
    assert [True, True, False, True, True] == [is_whole(line) for line in lines]
    assert log.error is None


@needs_pipes
def test_pipe_without_reader_is_a_usage_error(pytester: pytest.Pytester) -> None:
    """A pipe that no process reads ends the run before its first test, and does not hang it."""
    pytester.makepyfile("def test_ran(): open('ran', 'w').close()")
    os.mkfifo("pipe")

    result = run_here(pytester, "--imu-log=pipe")

    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines(["ERROR: invalid value * for --imu-log: *(no process reads this pipe)"])
    assert not Path("ran").exists()


@needs_pipes
@pytest.mark.parametrize("leaves", [False, True])
def test_pipe(pytester: pytest.Pytester, leaves: bool) -> None:  # noqa: FBT001 - pytest passes it
    """The reader of a pipe gets every line, and its end with the run's and no sooner; one that leaves
    costs a line of the summary.
    """
    pytester.makepyfile("""
        def test_waits():
            open("go").read()

        def test_next():
            pass
    """)
    os.mkfifo("pipe")
    os.mkfifo("go")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    with pytester.popen(
        [sys.executable, "-m", "pytest", "-p", "imu", "--imu-log=pipe"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        with Path("go").open("w", encoding="ascii"):  # the first test runs
            log = os.read(reader, 2**16)
            with pytest.raises(BlockingIOError):  # and not the end
                os.read(reader, 1)
            if leaves:
                os.close(reader)
        output, _ = process.communicate(timeout=120)
    if not leaves:
        log += os.read(reader, 2**16)
        assert b"" == os.read(reader, 1)
        os.close(reader)

    assert 0 == process.returncode, output
    assert int(leaves) == output.count(b"--imu-log: a line could not be written: ")
    Path("run.jsonl").write_bytes(log)
    assert (1 if leaves else 4) == len(read(Path("run.jsonl")))


@pytest.mark.parametrize("path", ["-", "/dev/stdout"])
def test_captured_output_is_refused(pytester: pytest.Pytester, path: str) -> None:
    """What pytest captures while a test runs is no place for lines that shall survive it."""
    if path != "-" and not Path(path).exists():
        pytest.skip(f"needs {path}")
    pytester.makepyfile("def test_one(): pass")

    result = run_here(pytester, f"--imu-log={path}")

    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines([f"ERROR: invalid value '{path}' for --imu-log: expected a file, *"])


def test_what_tests_replace_is_not_what_the_log_uses(pytester: pytest.Pytester) -> None:
    """Tests in which a function that the log needs is replaced have all of their lines."""
    pytester.makepyfile(
        """
        import pytest

        def refuse(*args, **kwargs):
            raise ZeroDivisionError("mocked")

        BROKEN = {
            "json.dumps": refuse,
            "datetime.datetime": None,
            "os.open": refuse,
            "os.write": lambda *_: 0,
            "os.getpid": lambda: 1,
            "json.JSONEncoder.encode": refuse,
        }

        @pytest.fixture(params=BROKEN)
        def broken(request, monkeypatch):
            monkeypatch.setattr(request.param, BROKEN[request.param])

        def test_one(broken):
            pass

        def test_two(broken):
            pass
        """
    )

    result = run(pytester, "--imu-log=run.jsonl")

    result.assert_outcomes(passed=12)
    result.stdout.no_fnmatch_line("*--imu-log*")
    lines = events(read(pytester.path / "run.jsonl"))
    assert 24 == len(lines)
    assert [("start", name) for _, name in lines[::2]] == lines[::2]
    assert [("end", name) for _, name in lines[::2]] == lines[1::2]


def test_fault_of_our_own_is_said_once(pytester: pytest.Pytester) -> None:
    """Whatever the log itself does wrong costs its lines and one of the summary's, and no test."""
    pytester.makepyfile(
        """
        from pytest_imu.recording import runlog

        def test_breaks():
            runlog.encode = None

        def test_next():
            pass
        """
    )

    result = run(pytester, "--imu-log=run.jsonl")

    result.assert_outcomes(passed=2)
    assert ["--imu-log: a line could not be written: 'NoneType' object is not callable"] == [
        line for line in result.outlines if "--imu-log" in line
    ]
    assert [("start", "test_breaks")] == events(read(pytester.path / "run.jsonl"))


@pytest.mark.parametrize("mode", ["alone", "workers", "isolated"])
def test_log_has_what_the_json_file_has(pytester: pytest.Pytester, mode: str) -> None:
    """The first line describes the run, and each test's end has all that the JSON file says of it."""
    if mode == "workers":
        pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    if mode == "isolated" and not hasattr(os, "fork"):
        pytest.skip("needs_fork")
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def kept():
            yield
            assert False

        def test_blocks(imu):
            with imu.measure("one"):
                pass
            with imu.measure("two"):
                pass

        @pytest.mark.max_peak_mib(100)
        @pytest.mark.max_delta_mib(100, phase="all")
        def test_budgets():
            pass

        @pytest.mark.max_peak_mib(1)
        def test_broken(kept):
            b"x" * (20 << 20)

        @pytest.mark.skip
        def test_skipped():
            pass
        """
    )
    options = {"alone": [], "workers": ["-p", "xdist", "-n2"], "isolated": ["--imu-isolate"]}[mode]

    result = run(pytester, "--imu-log=run.jsonl", "--imu-json=run.json", *options)
    document = json.loads(Path("run.json").read_text(encoding="ascii"))
    run_line = json.loads(Path("run.jsonl").read_text(encoding="ascii").partition("\n")[0])
    ends = {line["nodeid"]: line for line in read(Path("run.jsonl")) if line["event"] == "end"}

    result.assert_outcomes(passed=2, failed=1, skipped=1, errors=1)
    assert document["schema"] == run_line["schema"]
    later = {"noise_floor_bytes", "counter_source", "sources"}
    assert run_line["environment"] == {
        key: value for key, value in document["environment"].items() if key not in later
    }
    assert 4 == len(document["tests"])
    for test in document["tests"]:
        assert test == {key: ends[test["nodeid"]][key] for key in test}
