"""Under pytest-xdist: the same rows, verdicts and log lines as without, and a crash costs one test."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("xdist", reason="pytest-xdist is not installed")

BOUND_BYTES = 2**19
"""How far a peak may be off on Linux: 0.5 MiB."""

EVERY_KIND = """
    import pytest

    KEPT = []

    @pytest.fixture
    def held():
        return b"x" * (30 << 20)

    def test_small():
        pass

    @pytest.mark.parametrize("mib", [10, 40])
    def test_big(mib):
        b"x" * (mib << 20)

    def test_with_fixture(held):
        assert held[0] == 120

    def test_block(imu):
        with imu.measure("the only one"):
            b"x" * (20 << 20)

    @pytest.mark.max_peak_mib(25)
    @pytest.mark.max_delta_mib(5)
    def test_kept():
        b"x" * (20 << 20)

    @pytest.mark.max_peak_mib(10)
    @pytest.mark.max_delta_mib(5)
    def test_broken():
        KEPT.append(b"x" * (20 << 20))

    @pytest.mark.max_peak_mib(10)
    def test_fails_by_itself():
        assert 1 == 2

    @pytest.mark.max_peak_mib(10)
    def test_skipped():
        pytest.skip("nothing to do")
"""


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """Run pytest with this plugin and xdist."""
    return pytester.runpytest_subprocess("-p", "imu", "-p", "xdist", *args)


def read_tests(pytester: pytest.Pytester, name: str) -> dict[str, dict[str, Any]]:
    """Return the JSON file's tests by their ids, without the file's name; each is there once."""
    tests = json.loads(pytester.path.joinpath(name).read_text(encoding="ascii"))["tests"]
    by_name = {test["nodeid"].partition("::")[2]: test for test in tests}
    assert len(by_name) == len(tests)
    return by_name


def read_log(pytester: pytest.Pytester, name: str) -> list[dict[str, Any]]:
    """Return the run log's lines about tests."""
    text = pytester.path.joinpath(name).read_text(encoding="ascii")
    return [json.loads(line) for line in text.splitlines()[1:]]


@pytest.mark.needs_kernel_peaks
def test_same_rows_as_without_workers(pytester: pytest.Pytester) -> None:
    """With -n 2 each test has the row that it has without: id, outcome, verdicts, blocks, and peaks
    within 0.5 MiB; and its worker besides.
    """
    pytester.makepyfile(EVERY_KIND)

    alone = run(pytester, "-n", "0", "--imu", "--imu-json=alone.json")
    spread = run(pytester, "-n", "2", "--imu", "--imu-json=spread.json")
    tests_alone, tests_spread = (read_tests(pytester, name) for name in ("alone.json", "spread.json"))

    for result in (alone, spread):
        assert pytest.ExitCode.TESTS_FAILED == result.ret
        result.assert_outcomes(passed=6, failed=2, skipped=1)
        result.stdout.fnmatch_lines(
            [
                "*_ test_broken _*",
                "*= imu =*",
                "*[ (]9 tests, *largest peak first*",
                "FAILED *::test_broken - Failed: *",
            ]
        )
        for start in ("", "*::test_broken: "):
            result.stdout.fnmatch_lines_random(
                [
                    f"{start}peak * MiB is over max_peak_mib(10) by * MiB (* %); started at * MiB, *",
                    f"{start}delta * MiB is over max_delta_mib(5) by * MiB (* %); started at * MiB, *",
                ]
            )
    alone.stdout.fnmatch_lines(["peak  delta  total   time  test"])
    spread.stdout.fnmatch_lines(["peak  delta  total   time  worker  test"])
    assert {None} == {test["worker"] for test in tests_alone.values()}
    assert {"gw0", "gw1"} == {test["worker"] for test in tests_spread.values()}
    assert tests_alone.keys() == tests_spread.keys()
    for name, expected in tests_alone.items():
        test = tests_spread[name]
        for key in ("nodeid", "attempt", "outcome"):
            assert expected[key] == test[key]
        for key in ("name", "limit", "phase", "verdict"):
            assert [budget[key] for budget in expected["budgets"]] == [
                budget[key] for budget in test["budgets"]
            ]
        assert [block["name"] for block in expected["blocks"]] == [
            block["name"] for block in test["blocks"]
        ]
        assert [peak is None for peak in peaks(expected)] == [peak is None for peak in peaks(test)]
        far = [
            (name, expected_peak, peak)
            for expected_peak, peak in zip(peaks(expected), peaks(test), strict=True)
            if expected_peak is not None and abs(expected_peak - peak) > BOUND_BYTES
        ]
        assert [] == far


def peaks(test: dict[str, Any]) -> list[Any]:
    """Return the peaks of a test's phases and blocks."""
    phases = [*test["phases"].values(), *test["blocks"]]
    return [None if one is None else one["peak_bytes"] for one in phases]


@pytest.mark.needs_fork
def test_crashed_worker_costs_one_test(pytester: pytest.Pytester) -> None:
    """A worker that dies loses no other test's row; the test it died in is a row called crashed, with
    the phases that it had, and the last thing its worker wrote to the log.
    """
    pytester.makepyfile(
        """
        import os
        import signal

        import pytest

        @pytest.mark.parametrize("number", range(4))
        def test_before(number):
            pass

        def test_exits():
            os._exit(3)

        def test_killed():
            os.kill(os.getpid(), signal.SIGKILL)

        @pytest.fixture
        def deadly():
            os._exit(3)

        def test_dies_in_setup(deadly):
            pass

        @pytest.mark.parametrize("number", range(4))
        def test_after(number):
            pass
        """
    )

    result = run(pytester, "-n", "2", "--imu", "--imu-json=run.json", "--imu-log=run.jsonl")
    tests = read_tests(pytester, "run.json")
    last_of_worker = {line["worker"]: line for line in read_log(pytester, "run.jsonl")}

    assert pytest.ExitCode.TESTS_FAILED == result.ret
    result.assert_outcomes(passed=8, failed=3)
    crashed = ["test_dies_in_setup", "test_exits", "test_killed"]
    others = [f"test_{when}[{number}]" for when in ("after", "before") for number in range(4)]
    assert sorted([*crashed, *others]) == sorted(tests)
    assert crashed == sorted(name for name, test in tests.items() if test["outcome"] == "crashed")
    assert {"passed"} == {tests[name]["outcome"] for name in others}
    for name in crashed:
        phases = tests[name]["phases"]
        assert (name == "test_dies_in_setup") == (phases["setup"] is None)
        assert (None, None) == (phases["call"], phases["teardown"])
        last = last_of_worker[tests[name]["worker"]]
        assert ("start", tests[name]["nodeid"]) == (last["event"], last["nodeid"])
    result.stdout.fnmatch_lines(["*[ (]8 tests[),]*"])


def test_off_says_how_many_budgets_it_skipped(pytester: pytest.Pytester) -> None:
    """With --no-imu no budget is enforced, and the summary says how many that were, counted once."""
    pytester.makepyfile(EVERY_KIND)

    for workers in ("0", "2"):
        result = run(pytester, "-n", workers, "--no-imu", "--imu", "--imu-json=run.json")

        result.assert_outcomes(passed=7, failed=1, skipped=1)
        result.stdout.fnmatch_lines(["*= imu =*", "6 budgets not enforced: --no-imu"])
        assert not pytester.path.joinpath("run.json").exists()


def test_log_and_rows_of_workers_that_share_by_scope(pytester: pytest.Pytester) -> None:
    """With --dist loadscope the rows and the log have every test of every worker, from start to end."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("number", range(3))
        class TestOne:
            def test_it(self, number):
                pass

        @pytest.mark.parametrize("number", range(3))
        class TestTwo:
            def test_it(self, number):
                pass
        """
    )

    result = run(
        pytester, "-n2", "--dist=loadscope", "--imu-json=logs/run.json", "--imu-log=logs/run.jsonl"
    )
    tests = read_tests(pytester, "logs/run.json")
    lines = read_log(pytester, "logs/run.jsonl")

    result.assert_outcomes(passed=6)
    assert [
        f"Test{name}::test_it[{number}]" for name in ("One", "Two") for number in range(3)
    ] == sorted(tests)
    for name in ("One", "Two"):
        assert 1 == len({test["worker"] for key, test in tests.items() if key.startswith(f"Test{name}")})
    assert 12 == len(lines)
    for worker in ("gw0", "gw1"):
        own = [line for line in lines if line["worker"] == worker]
        assert 1 == len({line["pid"] for line in own})
        for start, end in zip(own[::2], own[1::2], strict=True):
            assert ("start", "end", "passed") == (start["event"], end["event"], end["outcome"])
            assert start["nodeid"] == end["nodeid"]
            [test] = [one for one in tests.values() if one["nodeid"] == end["nodeid"]]
            assert worker == test["worker"]
            assert test["phases"]["call"]["peak_bytes"] == end["peak_bytes"]


@pytest.mark.parametrize("measured", [True, False])
def test_odd_user_properties_pass(pytester: pytest.Pytester, measured: bool) -> None:  # noqa: FBT001 - pytest passes it
    """What other plugins put into a test's properties comes home as it is, in pairs or not."""
    pytester.makeconftest(
        """
        def pytest_runtest_logreport(report):
            if hasattr(report, "node") and report.when == "call":
                for one in ("odd", 7, (1, 2, 3), ("pair", 1)):
                    assert one in report.user_properties
        """
    )
    pytester.makepyfile(
        """
        def test_odd(request):
            request.node.user_properties += ["odd", 7, (1, 2, 3), ("pair", 1)]
        """
    )

    result = run(pytester, "-n1", *(["--imu"] if measured else []))

    result.assert_outcomes(passed=1)
    assert 0 == result.ret
