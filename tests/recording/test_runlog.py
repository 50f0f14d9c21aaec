"""The run log: a line when a test starts and when it ends, whatever happens between them."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

BOUND_BYTES = 2**19
"""How far a peak may be off on Linux: 0.5 MiB."""

needs_full_device = pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="needs /dev/full, on which every write fails"
)


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """Run pytest with this plugin."""
    return pytester.runpytest_subprocess("-p", "imu", *args)


def read(path: Path) -> list[dict[str, Any]]:
    """Return a log's lines."""
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


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
    common = ["worker", "pid", "time", "rss_bytes"]
    end_of_big = lines[3]
    assert ["event", "nodeid", "attempt", *common] == list(lines[-1])
    assert ["event", "nodeid", "attempt", "outcome", "peak_bytes", "delta_bytes", *common] == list(
        end_of_big
    )
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

    result = run(pytester, f"--imu-log={path}")

    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines(
        ["ERROR: invalid value * for --imu-log: expected a file that can be written (*)"]
    )
    assert not pytester.path.joinpath("ran").exists()
