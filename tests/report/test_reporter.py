"""The end of a run: whatever tests left broken, pytest's own summary and files stand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

LEFT_BROKEN = {
    "empty sys.path": "sys.path[:] = []",
    "modules forgotten": "[sys.modules.pop(name) for name in [*sys.modules] if 'imu' in name]",
    "json.dumps": "json.dumps = refuse",
    "SIGCHLD ignored": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "os.cpu_count": "os.cpu_count = refuse",
    "os.write": "os.write = lambda descriptor, data: len(data)",
    "os.getpid": "os.getpid = lambda: 1",
    "os.replace": "os.replace = os.rename = os.unlink = refuse",
    "platform": "platform.system = platform.machine = platform.python_version = refuse",
    "datetime": "datetime.datetime = refuse",
    "standard streams": "sys.stdout = sys.stderr = None",
}
"""What a test may leave behind without any harm to the JSON file and the section."""
LOST = {
    "no importer": "sys.meta_path[:] = []; sys.path_hooks[:] = []; sys.modules.pop('json.encoder', 0)"
    "; json.JSONEncoder.encode = refuse",
    "json encoder": "json.JSONEncoder.iterencode = refuse",
    "pathlib": "pathlib.Path.stat = refuse",
    "a call that must not be": "pathlib.Path.stat = lambda *_, **__: pytest.fail('called')",
    "an exit": "pathlib.Path.stat = lambda *_, **__: sys.exit(7)",
}
"""What costs the JSON file, and a warning."""

SUITE = """
    import datetime, json, os, pathlib, platform, signal, sys

    import pytest

    def refuse(*args, **kwargs):
        raise ZeroDivisionError("left broken")

    def test_fails():
        assert 1 == 2

    @pytest.mark.max_peak_mib(1000)
    def test_budget():
        pass

    def test_breaks():
        {statement}
"""


def run(pytester: pytest.Pytester, statement: str, *options: str) -> pytest.RunResult:
    """Run a suite whose last test leaves something broken; check that pytest's own end stands."""
    if "SIGCHLD" in statement:
        pytest.importorskip("resource", reason="needs SIGCHLD")
    pytester.makepyfile(SUITE.format(statement=statement))
    files = ("--imu-json=run.json", "--imu-log=run.jsonl", "--junit-xml=junit.xml")

    # pytest's own cache needs much of what is broken here.
    result = pytester.runpytest_subprocess("-p", "imu", "-p", "no:cacheprovider", *files, *options)

    assert pytest.ExitCode.TESTS_FAILED == result.ret
    result.stdout.fnmatch_lines(["E*assert 1 == 2", "*short test summary info*", "FAILED *test_fails*"])
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
    result.stderr.no_fnmatch_line("*Traceback*")
    assert 'tests="3"' in Path("junit.xml").read_text(encoding="utf-8")
    return result


@pytest.mark.parametrize("name", LEFT_BROKEN)
def test_what_is_left_broken_costs_nothing(pytester: pytest.Pytester, name: str) -> None:
    """What the end needs was imported, bound and read before the first test."""
    result = run(pytester, LEFT_BROKEN[name], "--imu")

    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*= imu =*"])
    tests = json.loads(Path("run.json").read_text(encoding="ascii"))["tests"]
    assert ["failed", "passed", "passed"] == [test["outcome"] for test in tests]


@pytest.mark.parametrize("name", LOST)
def test_what_cannot_be_written_is_one_warning(pytester: pytest.Pytester, name: str) -> None:
    """Where the file is lost all the same, one of pytest's warnings says so, with -W error too."""
    result = run(pytester, LOST[name], "--imu", "-W", "error")

    result.assert_outcomes(passed=2, failed=1, warnings=1)
    result.stdout.fnmatch_lines(
        ["*= warnings summary*", "*PytestWarning: imu: --imu-json: *", "*= imu =*"]
    )
    assert not Path("run.json").exists()
    assert [] == list(Path.cwd().glob(".imu-*"))


@pytest.mark.parametrize("ours", ["section'].lines", "rows'].Rows.add", "jsonfile'].write"])
def test_fault_of_our_own_is_one_warning(pytester: pytest.Pytester, ours: str) -> None:
    """An error in what makes the section, the rows or the file is one warning, though it comes often."""
    result = run(pytester, f"sys.modules['pytest_imu.report.{ours} = refuse", "--imu")

    result.assert_outcomes(passed=2, failed=1, warnings=1)
    result.stdout.fnmatch_lines(["*PytestWarning: imu: *: ZeroDivisionError: left broken"])


def test_budgets_alone_need_no_import_at_the_end(pytester: pytest.Pytester) -> None:
    """Also where only a marker asked for the measuring, the broken budget is told at the end."""
    pytester.makepyfile(
        """
        import sys

        import pytest

        @pytest.mark.max_peak_mib(1)
        def test_broken():
            held = b"x" * (20 << 20)
            sys.path[:] = []
        """
    )

    result = pytester.runpytest_subprocess("-p", "imu", "-p", "no:cacheprovider", "-q")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*= imu =*", "*::test_broken: peak * is over max_peak_mib(1)*"])


def test_workers(pytester: pytest.Pytester) -> None:
    """What a worker cannot tell at its end is a warning too."""
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")

    result = run(pytester, "import math; math.ceil = refuse", "--imu", "-p", "xdist", "-n1")

    result.assert_outcomes(passed=2, failed=1, warnings=1)
    result.stdout.fnmatch_lines(["*PytestWarning: imu: *: ZeroDivisionError: left broken", "*= imu =*"])
    assert 3 == len(json.loads(Path("run.json").read_text(encoding="ascii"))["tests"])
