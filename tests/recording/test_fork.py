"""A test that forks: the child neither disturbs the parent's numbers nor writes the parent's files."""

from __future__ import annotations

import pytest

from running import JSON, LOG, Test, read_log, read_tests, run

pytestmark = pytest.mark.needs_fork

BOUND_BYTES = 2**19
"""How far a peak may be off on Linux: 0.5 MiB."""


def run_forking(pytester: pytest.Pytester) -> tuple[pytest.RunResult, list[Test], list[Test]]:
    """Run pytest with this plugin; return its result, and the tests of the JSON file and of the log."""
    # The child's cache and the parent's are one folder, which is not what is tried here.
    result = run(pytester, "-p", "no:cacheprovider", "--imu", JSON, LOG)
    return result, read_tests(pytester), read_log(pytester)


@pytest.mark.needs_kernel_peaks
def test_child_that_exits(pytester: pytest.Pytester) -> None:
    """A child's memory and its own windows leave the parent's peak, before and after, what it was."""
    pytester.makepyfile(
        """
        import os

        import pytest
        from pytest_imu import measure

        def in_child(function):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    status = function()
                finally:
                    os._exit(status)
            assert os.waitpid(child, 0) == (child, 0)

        def allocate():
            with measure() as m:
                b"x" * (60 << 20)
            return abs(m.peak_bytes - (60 << 20)) > 2**19 or m.source != "kernel"

        def test_child_allocates():
            in_child(allocate)

        def test_peak_before_the_fork():
            b"x" * (40 << 20)
            in_child(allocate)

        def test_peak_after_the_fork():
            in_child(allocate)
            b"x" * (40 << 20)

        @pytest.mark.max_peak_mib(30)
        def test_held_across_the_fork(imu):
            held = b"x" * (40 << 20)
            with imu.measure("fork"):
                in_child(allocate)
            assert held

        def test_next():
            pass
        """
    )

    result, tests, lines = run_forking(pytester)

    result.assert_outcomes(passed=4, failed=1)
    for test, peak_mib in zip(tests, (0, 40, 40, 40, 0), strict=True):
        call = test["phases"]["call"]
        assert "kernel" == call["source"]
        assert abs(call["peak_bytes"] - peak_mib * 2**20) <= BOUND_BYTES
    [block] = tests[3]["blocks"]
    assert block["peak_bytes"] <= BOUND_BYTES
    assert ["broken"] == [budget["verdict"] for budget in tests[3]["budgets"]]
    assert 10 == len(lines)


@pytest.mark.parametrize("way_on", ["return", "raise SystemExit", "pytest.exit('in the child')"])
def test_child_that_runs_on(pytester: pytest.Pytester, way_on: str) -> None:
    """A child that goes on through the rest of pytest adds nothing to the parent's JSON and log."""
    pytester.makepyfile(
        f"""
        import os
        from pathlib import Path

        import pytest

        def test_before():
            pass

        def test_forks():
            log = Path("run.jsonl").read_bytes()
            child = os.fork()
            if child == 0:
                {way_on}
            else:
                # The child has come to the end of its pytest: nothing of that may be in the files.
                assert os.waitpid(child, 0)[0] == child
                assert Path("child").exists()
                assert Path("run.jsonl").read_bytes() == log
                assert not Path("run.json").exists()

        def test_after():
            pass
        """
    )
    pytester.makeconftest(
        """
        import os
        from pathlib import Path

        parent = os.getpid()

        def pytest_unconfigure():
            if os.getpid() != parent:
                Path("child").touch()
        """
    )

    result, tests, lines = run_forking(pytester)

    assert pytest.ExitCode.OK == result.ret
    names = ["test_before", "test_forks", "test_after"]
    assert [(name, "passed") for name in names] == [
        (test["nodeid"].rpartition("::")[2], test["outcome"]) for test in tests
    ]
    assert [(event, name) for name in names for event in ("start", "end")] == [
        (line["event"], line["nodeid"].rpartition("::")[2]) for line in lines
    ]
    assert 1 == len({line["pid"] for line in lines})
