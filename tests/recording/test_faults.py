"""Whatever breaks inside the measuring: no outcome changes, it is said once, and the rows say n/a."""

from __future__ import annotations

import json
import re

import pytest

from running import JSON, LOG, Test, read_by_name, read_log, run

UNREADABLE = "memory could not be read: RuntimeError: no numbers here"

NO_SOURCE = """
    from pytest_imu.core.memory import source as memory

    def refuse():
        raise RuntimeError("no numbers here")

    memory.peak_source = refuse
"""

NO_WINDOW = """
    from pytest_imu.core.memory import source as memory

    def refuse(source, settle=None):
        raise RuntimeError("no numbers here")

    type(memory.peak_source()).open = refuse
"""

ENDS_BREAK_MIDWAY = """
    from pytest_imu.core.memory import source as memory

    Source = type(memory.peak_source())
    close, closed, begun = Source.close, [], []

    def pytest_runtest_logstart(nodeid):
        begun.append(nodeid)

    def break_after_five(source, window, settle=None):
        sizes = close(source, window, settle)
        closed.extend([window] if begun else [])  # before there are those that measure the noise
        if len(closed) > 5:  # behind test_second's setup: where a budget is, windows are opened twice
            raise RuntimeError("no numbers here")
        return sizes

    Source.close = break_after_five
"""

TESTS = """
    import pytest

    @pytest.fixture
    def held():
        yield b"x" * 1000

    def test_first(held):
        assert held

    @pytest.mark.max_peak_mib(10)
    def test_second():
        b"x" * (20 << 20)

    @pytest.mark.max_peak_mib(10, phase="all")
    @pytest.mark.max_delta_mib(10)
    def test_third(imu):
        with imu.measure("block") as m:
            pass
        assert m.peak_bytes is None
"""


def run_with_files(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """Run pytest with this plugin, with every file that it can write."""
    return run(pytester, "-v", JSON, LOG, "--junit-xml=junit.xml", *args)


def sources(test: Test) -> list[str]:
    """Return where the numbers of each phase come from."""
    return [phase["source"] for phase in test["phases"].values() if phase is not None]


@pytest.mark.parametrize("how", ["alone", "warnings are errors", "workers"])
def test_nothing_can_be_measured(pytester: pytest.Pytester, how: str) -> None:
    """Where nothing can be measured all tests pass, with one warning, every row n/a with the reason
    and every budget named as not checked; also with -W error, and under xdist.
    """
    pytester.makeconftest(NO_WINDOW)
    pytester.makepyfile(TESTS)
    options = {"alone": (), "warnings are errors": ("-W", "error"), "workers": ("-p", "xdist", "-n2")}
    if how == "workers":
        pytest.importorskip("xdist", reason="pytest-xdist is not installed")

    result = run_with_files(pytester, "--imu", *options[how])

    assert_nothing_was_measured(pytester, result)
    rows = [line for line in result.outlines if re.match(r" n/a    n/a    n/a +\d+\.\d\ds", line)]
    assert [f"test_{name}" for name in ("first", "second", "third")] == sorted(
        line.rpartition("::")[2] for line in rows if "::" in line
    )
    assert f"n/a in 3 rows: {UNREADABLE}" in result.outlines


def test_no_peak_source_at_all(pytester: pytest.Pytester) -> None:
    """Where not even a source of peaks can be had, the run and its files are as with any other fault."""
    pytester.makeconftest(NO_SOURCE)
    pytester.makepyfile(TESTS)

    result = run_with_files(pytester, "--imu")
    document = json.loads(pytester.path.joinpath("run.json").read_text(encoding="ascii"))

    assert_nothing_was_measured(pytester, result)
    assert "none (RuntimeError: no numbers here)" == document["environment"]["peak_source"]


def assert_nothing_was_measured(pytester: pytest.Pytester, result: pytest.RunResult) -> None:
    """Assert that all tests passed and that every place says that nothing was measured, and why."""
    tests = read_by_name(pytester)
    assert pytest.ExitCode.OK == result.ret
    result.assert_outcomes(passed=3, warnings=1)
    result.stdout.fnmatch_lines(
        [
            "*= warnings summary =*",
            f"*PytestWarning: imu: {UNREADABLE}",
            "*= imu =*",
            f"3 budgets not checked: {UNREADABLE}",
        ]
    )
    result.stdout.fnmatch_lines_random(
        [
            "*::test_second: max_peak_mib(10)",
            '*::test_third: max_peak_mib(10, phase="all")',
            "*::test_third: max_delta_mib(10)",
        ]
    )
    assert ["passed"] * 3 == [test["outcome"] for test in tests.values()]
    assert [0, 1, 2] == sorted(len(test["budgets"]) for test in tests.values())
    for test in tests.values():
        assert {"none"} == set(sources(test))
        for phase in filter(None, test["phases"].values()):
            assert UNREADABLE == phase["reason"]
            assert {None} == {value for key, value in phase.items() if key.endswith("_bytes")}
            assert phase["duration_ns"] > 0
        for budget in test["budgets"]:
            assert ("unchecked", UNREADABLE) == (budget["verdict"], budget["reason"])
    ends = [line for line in read_log(pytester) if line["event"] == "end"]
    assert [("passed", None)] * 3 == [(line["outcome"], line["peak_bytes"]) for line in ends]
    assert 3 == pytester.path.joinpath("junit.xml").read_text(encoding="utf-8").count(
        '"imu_peak_mib" value="n/a"'
    )


def test_measuring_breaks_midway(pytester: pytest.Pytester) -> None:
    """A window that cannot be closed loses its own numbers and no others; a budget that needs them is
    unchecked, and said to be.
    """
    pytester.makeconftest(ENDS_BREAK_MIDWAY)
    pytester.makepyfile(TESTS)

    result = run_with_files(pytester, "--imu")
    tests = read_by_name(pytester)

    assert pytest.ExitCode.OK == result.ret
    result.assert_outcomes(passed=3, warnings=1)
    result.stdout.fnmatch_lines(
        [
            "*= warnings summary =*",
            "*::test_second",
            f"*PytestWarning: imu: {UNREADABLE}",
            f"n/a in 2 rows: {UNREADABLE}",
            f"3 budgets not checked: {UNREADABLE}",
        ]
    )
    assert "none" not in sources(tests["test_first"])
    assert [False, True] == [source == "none" for source in sources(tests["test_second"])]
    assert {"none"} == set(sources(tests["test_third"]))
    assert {"passed"} == {test["outcome"] for test in tests.values()}
    assert [["unchecked"], ["unchecked", "unchecked"]] == [
        [budget["verdict"] for budget in tests[name]["budgets"]]
        for name in ("test_second", "test_third")
    ]


def test_tests_that_patch_what_measuring_uses(pytester: pytest.Pytester) -> None:
    """A test may break what the measuring needs, and passes; its own numbers alone are lost."""
    pytester.makepyfile(
        """
        import pytest

        def refuse(*args, **kwargs):
            raise RuntimeError("no numbers here")

        @pytest.mark.parametrize(
            "name",
            [
                "datetime.datetime",
                "gc.collect",
                "json.dumps",
                "os.close",
                "os.getpid",
                "os.open",
                "os.pread",
                "os.read",
                "os.write",
                "platform.platform",
            ],
        )
        def test_patches(name, monkeypatch):
            b"x" * (20 << 20)
            monkeypatch.setattr(name, refuse, raising=False)

        def test_has_odd_properties(record_property):
            record_property(1, "a name that is no text")

        def test_next():
            pass
        """
    )

    result = run_with_files(
        pytester, "--imu", "-o", "imu_gc=true", "-o", "junit_family=legacy", "-W", "error"
    )
    tests = read_by_name(pytester)

    assert pytest.ExitCode.OK == result.ret
    assert 12 == result.parseoutcomes()["passed"]
    assert 12 == len(tests)
    assert ["passed"] * 12 == [test["outcome"] for test in tests.values()]
    assert "none" not in sources(tests["test_next"])
    for test in tests.values():
        for phase in filter(None, test["phases"].values()):
            assert (phase["source"] == "none") == (phase["peak_bytes"] is None)
            assert phase["reason"] in (None, UNREADABLE)


def test_tests_that_never_ran(pytester: pytest.Pytester) -> None:
    """What was skipped, not run or failed in its setup has no row of numbers and no budget that failed
    it, and is no fault of the measuring; nor does the error's traceback show the plugin.
    """
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture
        def bad():
            raise ValueError("bad fixture")
        """
    )
    pytester.makepyfile(
        """
        import pytest

        pytestmark = pytest.mark.max_peak_mib(10)

        @pytest.fixture
        def skips():
            pytest.skip("in the fixture")

        def test_ran():
            pass

        def test_error(bad):
            pass

        @pytest.mark.skip
        def test_skipped():
            pass

        def test_skipped_by_fixture(skips):
            pass

        @pytest.mark.xfail(run=False)
        def test_not_run():
            pass
        """
    )

    result = run_with_files(pytester, "--imu", "-W", "error")
    tests = read_by_name(pytester)

    result.assert_outcomes(passed=1, errors=1, skipped=2, xfailed=1)
    result.stdout.fnmatch_lines(["E * ValueError: bad fixture", "*[ (]1 test, *largest peak first*"])
    result.stdout.no_fnmatch_line("*n/a*")
    result.stdout.no_fnmatch_line("*not checked*")
    result.stdout.no_fnmatch_line("*recorder.py*")
    never = {
        "test_error": "error",
        "test_skipped": "skipped",
        "test_skipped_by_fixture": "skipped",
        "test_not_run": "xfailed",
    }
    assert {"test_ran": "passed", **never} == {name: test["outcome"] for name, test in tests.items()}
    for name in never:
        assert tests[name]["phases"]["call"] is None
        [budget] = tests[name]["budgets"]
        assert ("unchecked", "the test's call did not run") == (budget["verdict"], budget["reason"])


def test_clock_that_a_test_patches(pytester: pytest.Pytester) -> None:
    """A test that breaks or bends the clock passes, and its time is the real one."""
    pytester.makepyfile(
        """
        import time

        def test_breaks(monkeypatch):
            monkeypatch.delattr(time, "perf_counter_ns")

        def test_bends(monkeypatch):
            monkeypatch.setattr(time, "perf_counter_ns", lambda: 0)

        def test_after():
            assert time.perf_counter_ns() > 0
        """
    )
    result = run_with_files(pytester)
    result.assert_outcomes(passed=3)
    for test in read_by_name(pytester).values():
        assert 0 < test["phases"]["call"]["duration_ns"] < 10 * 10**9
