"""Budgets in whole runs: which limit counts, what a broken one does, and that none passes in silence."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., pytest.RunResult]
Limit = tuple[str, float, str, str | None]

SPIKES = """
    import mmap

    # The kernel counts shared memory apart: with private, shared and file pages the mark may read
    # over half a MiB low, and the tests hold it to that.
    PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}

    def touched(mib):
        block = mmap.mmap(-1, mib << 20, **PRIVATE)
        block[::4096] = b"x" * (mib << 8)
        return block
"""
TWO_MARKERS = """
    import pytest
    from spikes import touched

    def test_plain():
        touched(8).close()

    @pytest.mark.max_peak_mib(20)
    def test_marked():
        touched(8).close()
"""
OVER_ONE = """
    import pytest
    from spikes import touched

    @pytest.mark.max_peak_mib(1)
    def test_over():
        touched(4).close()
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs pytest in 80 columns, with this plugin and no other."""
    monkeypatch.setenv("COLUMNS", "80")
    pytester.makepyfile(spikes=SPIKES)
    return functools.partial(pytester.runpytest_subprocess, "-p", "imu")


def limits_in(path: Path) -> dict[str, list[Limit]]:
    """Return every test's budgets as the JSON file has them, by the test's name."""
    tests = json.loads(path.read_text(encoding="utf-8"))["tests"]
    return {
        test["nodeid"].partition("::")[2]: sorted(
            (one["name"], one["limit"], one["phase"], one["origin"]) for one in test["budgets"]
        )
        for test in tests
    }


def block_of(result: pytest.RunResult, title: str) -> list[str]:
    """Return what stands under a test's title, up to the next title."""
    lines = result.outlines
    start = next(n for n, line in enumerate(lines) if re.fullmatch(rf"_+ {title} _+", line))
    end = next(n for n, line in enumerate(lines) if n > start and re.match(r"[_=]{3}", line))
    return lines[start + 1 : end]


def breach(
    metric: str, limit: str, *, actual: str = r"\d+\.\d", over: str = r"\d+\.\d", origin: str = ""
) -> str:
    """Return the pattern of a breach's one line."""
    return (
        rf"{metric} {actual} MiB is over {re.escape(limit)} by {over} MiB \(\d+ %\); "
        rf"started at \d+\.\d MiB, (kernel high-water mark|sampled, a lower bound){re.escape(origin)}"
    )


# --- which limit counts -------------------------------------------------------------------------


def test_closest_marker_wins(run: Run, pytester: pytest.Pytester) -> None:
    """The closest place counts: the parameter, then the function, class, base class and module."""
    pytester.makepyfile(
        test_levels="""
            import pytest

            pytestmark = pytest.mark.max_peak_mib(101)

            def test_module():
                pass

            @pytest.mark.max_peak_mib(102)
            def test_function():
                pass

            @pytest.mark.max_peak_mib(103)
            @pytest.mark.parametrize(
                "n", [pytest.param(1, marks=pytest.mark.max_peak_mib(104)), 2], ids=["own", "none"]
            )
            def test_parameter(n):
                pass

            @pytest.mark.max_peak_mib(105)
            class Base:
                def test_class(self):
                    pass

                @pytest.mark.max_peak_mib(106)
                def test_method(self):
                    pass

            class TestHeir(Base):
                pass

            @pytest.mark.max_peak_mib(107)
            class TestChild(Base):
                @pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.max_peak_mib(108))])
                def test_all_levels(self, n):
                    pass

            class TestUnmarked:
                def test_class(self):
                    pass
        """
    )

    run("--imu-json=run.json", "--imu-max-peak-mib=200").assert_outcomes(passed=10)

    counted = limits_in(pytester.path / "run.json").items()
    assert {
        "test_module": 101,
        "test_function": 102,
        "test_parameter[own]": 104,
        "test_parameter[none]": 103,
        "TestHeir::test_class": 105,
        "TestHeir::test_method": 106,
        "TestChild::test_all_levels[1]": 108,
        "TestChild::test_class": 107,
        "TestChild::test_method": 106,
        "TestUnmarked::test_class": 101,
    } == {name: limit for name, [(_, limit, _, _)] in counted}


def test_none_lifts_what_is_farther_away(run: Run, pytester: pytest.Pytester) -> None:
    """`max_peak_mib(None)` frees its test of every farther peak limit, the default too, of no other."""
    pytester.makepyfile(
        test_lifted="""
            import pytest

            pytestmark = [pytest.mark.max_peak_mib(101), pytest.mark.max_delta_mib(50)]

            @pytest.mark.max_peak_mib(None)
            def test_function():
                pass

            @pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.max_peak_mib(None)), 2])
            @pytest.mark.max_peak_mib(102)
            def test_parameter(n):
                pass

            @pytest.mark.max_peak_mib(103, phase="setup")
            class Base:
                pass

            @pytest.mark.max_peak_mib(None)
            class TestChild(Base):
                def test_free(self):
                    pass

                @pytest.mark.max_peak_mib(104)
                def test_own(self):
                    pass
        """
    )

    run("--imu-json=run.json", "--imu-max-peak-mib=200").assert_outcomes(passed=5)

    delta = ("max_delta_mib", 50, "call", None)
    assert {
        "test_function": [delta],
        "test_parameter[1]": [delta],
        "test_parameter[2]": [delta, ("max_peak_mib", 102, "call", None)],
        "TestChild::test_free": [delta],
        "TestChild::test_own": [delta, ("max_peak_mib", 104, "call", None)],
    } == limits_in(pytester.path / "run.json")


def test_one_function_may_have_a_limit_for_each_phase(run: Run, pytester: pytest.Pytester) -> None:
    """Several phases and both kinds of limit stand side by side on one function."""
    pytester.makepyfile(
        test_phases="""
            import pytest

            @pytest.mark.max_peak_mib(100)
            @pytest.mark.max_peak_mib(50, phase="setup")
            @pytest.mark.max_peak_mib(150, phase="all")
            @pytest.mark.max_delta_mib(10, phase="all")
            def test_phases():
                pass
        """
    )

    run("--imu-json=run.json").assert_outcomes(passed=1)

    assert {
        "test_phases": [
            ("max_delta_mib", 10, "all", None),
            ("max_peak_mib", 50, "setup", None),
            ("max_peak_mib", 100, "call", None),
            ("max_peak_mib", 150, "all", None),
        ]
    } == limits_in(pytester.path / "run.json")


@pytest.mark.needs_kernel_peaks
def test_each_phase_is_held_to_its_own_limit(run: Run, pytester: pytest.Pytester) -> None:
    """The call is the body alone, setup the fixtures alone, all is both and what the teardown left."""
    pytester.makepyfile(
        test_phases="""
            import pytest
            from spikes import touched

            kept = []

            @pytest.fixture
            def data():
                return touched(8)

            @pytest.fixture
            def leak():
                yield
                kept.append(touched(8))

            peak, delta = pytest.mark.max_peak_mib, pytest.mark.max_delta_mib

            @peak(1)
            @delta(1)
            def test_call_does_not_see_the_fixture(data):
                pass

            @peak(1, phase="setup")
            def test_setup_does_not_see_the_body():
                touched(8).close()

            @delta(1, phase="all")
            def test_all_delta_does_not_count_the_fixture_value(data):
                pass

            @peak(1, phase="setup")
            def test_setup_peak(data):
                pass

            @delta(1, phase="setup")
            def test_setup_delta(data):
                pass

            @peak(12, phase="all")
            def test_all_peak(data):
                touched(8).close()

            @delta(1, phase="all")
            def test_all_delta(leak):
                pass
        """
    )

    result = run("-rA")

    result.assert_outcomes(passed=4, failed=3, errors=1)
    assert {
        "test_setup_peak": 'max_peak_mib(1, phase="setup")',
        "test_setup_delta": 'max_delta_mib(1, phase="setup")',
        "test_all_peak": 'max_peak_mib(12, phase="all")',
        "ERROR at teardown of test_all_delta": 'max_delta_mib(1, phase="all")',
    } == {
        title: re.sub(r".* is over (\S.*\)) by .*", r"\1", block_of(result, title)[0])
        for title in (
            "test_setup_peak",
            "test_setup_delta",
            "test_all_peak",
            "ERROR at teardown of test_all_delta",
        )
    }
    result.stdout.fnmatch_lines(["PASSED test_phases.py::test_all_delta"])


@pytest.mark.needs_kernel_peaks
def test_command_line_wins_over_ini_and_a_marker_over_both(run: Run, pytester: pytest.Pytester) -> None:
    """A default holds every test without a limit of its own, needs no `--imu`, and names its source."""
    pytester.makeini("[pytest]\nimu_max_peak_mib = 2\nimu_max_delta_mib = 30")
    pytester.makepyfile(test_two=TWO_MARKERS)

    by_ini = run("--imu-json=ini.json")
    by_flag = run("--imu-max-peak-mib=50.5", "--imu-json=flag.json")

    by_ini.assert_outcomes(passed=1, failed=1)
    from_ini = "; limit from imu_max_peak_mib in tox.ini"
    [line] = block_of(by_ini, "test_plain")
    assert re.fullmatch(breach("peak", "max_peak_mib(2)", origin=from_ini), line)
    by_flag.assert_outcomes(passed=2)
    delta = ("max_delta_mib", 30, "call", "imu_max_delta_mib in tox.ini")
    assert {
        "test_plain": [delta, ("max_peak_mib", 50.5, "call", "--imu-max-peak-mib")],
        "test_marked": [delta, ("max_peak_mib", 20, "call", None)],
    } == limits_in(pytester.path / "flag.json")


@pytest.mark.needs_kernel_peaks
@pytest.mark.parametrize("options", [[], ["--imu"]], ids=["without --imu", "with --imu"])
def test_delta_default_fails_what_keeps_too_much(
    run: Run, pytester: pytest.Pytester, options: list[str]
) -> None:
    """`--imu-max-delta-mib` fails a test by what it keeps, not by what it needs meanwhile."""
    pytester.makepyfile(
        test_keep="""
            from spikes import touched

            kept = []

            def test_keeps():
                kept.append(touched(8))

            def test_gives_back():
                touched(8).close()
        """
    )

    result = run("--imu-max-delta-mib=4", *options)

    result.assert_outcomes(passed=1, failed=1)
    [line] = block_of(result, "test_keeps")
    assert re.fullmatch(
        breach("delta", "max_delta_mib(4)", origin="; limit from --imu-max-delta-mib"), line
    )


# --- what a broken budget does ------------------------------------------------------------------


@pytest.mark.needs_kernel_peaks
def test_failure_is_one_line_of_the_documented_form(run: Run, pytester: pytest.Pytester) -> None:
    """The whole failure is one line, the same in the summary; several broken budgets are a line each."""
    pytester.makepyfile(
        test_over="""
            import pytest
            from spikes import touched

            kept = []

            @pytest.mark.max_peak_mib(16)
            def test_one():
                touched(32).close()

            @pytest.mark.max_peak_mib(2.5)
            @pytest.mark.max_delta_mib(0)
            def test_two():
                kept.append(touched(8))
        """
    )

    result = run()

    result.assert_outcomes(failed=2)
    [line] = block_of(result, "test_one")
    form = (
        r"peak (\d+\.\d) MiB is over max_peak_mib\(16\) by (\d+\.\d) MiB \((\d+) %\); "
        r"started at (\d+\.\d) MiB, kernel high-water mark"
    )
    matched = re.fullmatch(form, line)
    assert matched, line
    actual, over, share, started = map(float, matched.groups())
    assert pytest.approx(32, abs=0.5) == actual
    assert pytest.approx(actual - 16, abs=0.11) == over
    assert pytest.approx(100 * over / 16, abs=1) == share
    assert 5 < started < 500
    peak, delta = sorted(block_of(result, "test_two"), reverse=True)
    assert re.fullmatch(breach("peak", "max_peak_mib(2.5)"), peak)
    assert re.fullmatch(
        r"delta \d+\.\d MiB is over max_delta_mib\(0\) by \d+\.\d MiB; "
        r"started at \d+\.\d MiB, kernel high-water mark",
        delta,
    )
    result.stdout.fnmatch_lines(["FAILED test_over.py::test_one - Failed: peak *"])
    assert "Traceback" not in result.stdout.str()


@pytest.mark.needs_kernel_peaks
def test_breach_can_be_a_warning(run: Run, pytester: pytest.Pytester) -> None:
    """`imu_on_breach = warn` lets the test pass and warns; as an error the warning fails it."""
    pytester.makeini("[pytest]\nimu_on_breach = warn")
    pytester.makepyfile(test_over=OVER_ONE)

    warned = run("--imu")
    as_error = run("-W", "error")

    warned.assert_outcomes(passed=1, warnings=1)
    line = breach("peak", "max_peak_mib(1)")
    warned.stdout.re_match_lines([r"test_over\.py::test_over$", rf".*BudgetWarning: {line}"])
    assert [] == [text for text in warned.outlines if "/pytest_imu/" in text]
    warned.stdout.re_match_lines([rf"test_over\.py::test_over: {line}"])
    as_error.assert_outcomes(failed=1)
    as_error.stdout.re_match_lines([rf"E +pytest_imu\.BudgetWarning: {line}"])


@pytest.mark.needs_kernel_peaks
def test_own_error_stays_and_the_breach_is_a_section(run: Run, pytester: pytest.Pytester) -> None:
    """A test that fails by itself is reported for that; its breach stands in a section below."""
    pytester.makepyfile(
        test_own="""
            import pytest
            from spikes import touched

            @pytest.mark.max_peak_mib(1)
            def test_own_error():
                touched(4).close()
                assert 6 * 9 == 42

            @pytest.mark.max_peak_mib(100)
            def test_within():
                assert 6 * 9 == 42
        """
    )

    result = run()

    result.assert_outcomes(failed=2)
    own = block_of(result, "test_own_error")
    assert "E       assert (6 * 9) == 42" in own
    assert re.fullmatch(r"-+ Captured imu call -+", own[-2])
    assert re.fullmatch(breach("peak", "max_peak_mib(1)"), own[-1])
    assert [] == [line for line in block_of(result, "test_within") if "imu" in line]
    result.stdout.fnmatch_lines(["FAILED test_own.py::test_own_error - assert (6 * 9) == 42"])


@pytest.mark.needs_kernel_peaks
def test_breach_adds_no_second_error(run: Run, pytester: pytest.Pytester) -> None:
    """A test that broke down in its setup or its body has that one error, whatever its budgets say."""
    pytester.makepyfile(
        test_once="""
            import pytest
            from spikes import touched

            kept = []

            @pytest.fixture
            def broken():
                kept.append(touched(8))
                raise LookupError("no data")

            @pytest.mark.max_peak_mib(1, phase="setup")
            @pytest.mark.max_delta_mib(1, phase="all")
            def test_setup(broken):
                pass

            @pytest.mark.max_delta_mib(1, phase="all")
            def test_body():
                kept.append(touched(8))
                raise LookupError("no data")
        """
    )

    result = run()

    result.assert_outcomes(failed=1, errors=1)
    assert "E       LookupError: no data" in block_of(result, "ERROR at setup of test_setup")
    assert "E       LookupError: no data" in block_of(result, "test_body")


@pytest.mark.needs_kernel_peaks
def test_expected_failures_and_skips_keep_their_meaning(run: Run, pytester: pytest.Pytester) -> None:
    """A breach is a failure as xfail understands it, strict or not; it never turns a skip into one."""
    pytester.makepyfile(
        test_marks="""
            import pytest
            from spikes import touched

            over, within = pytest.mark.max_peak_mib(1), pytest.mark.max_peak_mib(100)

            @over
            @pytest.mark.xfail
            def test_xfail_broken():
                touched(4).close()

            @over
            @pytest.mark.xfail(strict=True)
            def test_strict_broken():
                touched(4).close()

            @within
            @pytest.mark.xfail
            def test_xfail_kept():
                pass

            @within
            @pytest.mark.xfail(strict=True)
            def test_strict_kept():
                pass

            @over
            @pytest.mark.xfail(raises=ValueError)
            def test_other_error_expected():
                touched(4).close()

            @over
            def test_skips_inside():
                touched(4).close()
                pytest.skip("enough")

            @over
            @pytest.mark.skip
            def test_skipped():
                pass
        """
    )

    result = run("-rA")

    found = (
        re.match(r"(PASSED|FAILED|ERROR|XFAIL|XPASS) test_marks\.py::(\w+)", line)
        for line in result.outlines
    )
    outcomes = {match[2]: match[1] for match in found if match}
    assert {
        "test_xfail_broken": "XFAIL",
        "test_strict_broken": "XFAIL",
        "test_xfail_kept": "XPASS",
        "test_strict_kept": "FAILED",
        "test_other_error_expected": "FAILED",
    } == outcomes
    result.assert_outcomes(xfailed=2, xpassed=1, failed=2, skipped=2)
    assert ["[XPASS(strict)] "] == block_of(result, "test_strict_kept")


# --- what is not enforced, or cannot be ---------------------------------------------------------


def test_no_imu_enforces_nothing_and_counts_what_it_skipped(run: Run, pytester: pytest.Pytester) -> None:
    """`--no-imu` lets every budget go, markers and defaults, and says of how many."""
    pytester.makepyfile(test_two=TWO_MARKERS, test_over=OVER_ONE)

    markers = run("--no-imu")
    defaults = run("--no-imu", "--imu", "--imu-max-peak-mib=1")

    markers.assert_outcomes(passed=3)
    markers.stdout.fnmatch_lines(["=* imu =*", "2 budgets not enforced: --no-imu"], consecutive=True)
    defaults.assert_outcomes(passed=3)
    defaults.stdout.fnmatch_lines(["3 budgets not enforced: --no-imu"])


def test_budget_of_a_phase_that_did_not_run_is_named(run: Run, pytester: pytest.Pytester) -> None:
    """A budget that nothing could be held against is counted and named, without `--imu` too."""
    pytester.makepyfile(
        test_phases="""
            import pytest

            @pytest.mark.max_peak_mib(5)
            @pytest.mark.max_peak_mib(50, phase="setup")
            def test_half():
                pass
        """
    )

    result = run("--setup-only")

    assert pytest.ExitCode.OK == result.ret
    result.stdout.fnmatch_lines(
        [
            "=* imu =*",
            "1 budget not checked: the test's call did not run",
            "  test_phases.py::test_half: max_peak_mib(5)",
            "=*",
        ],
        consecutive=True,
    )


def test_budget_whose_memory_cannot_be_read_is_named(run: Run, pytester: pytest.Pytester) -> None:
    """Where the measuring breaks, the test passes, and its budget is reported as not checked."""
    pytester.makeconftest("""
        from pytest_imu.core.memory import source as memory

        class Broken:
            def open(self, trimmer):
                raise OSError("no memory to read")

        memory.peak_source = Broken
    """)
    pytester.makepyfile(test_over=OVER_ONE)

    result = run()

    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(
        ["1 budget not checked: *no memory to read*", "  test_over.py::test_over: max_peak_mib(1)"],
        consecutive=True,
    )


@pytest.mark.parametrize(
    "options", [[], pytest.param(["--imu-isolate=all"], marks=pytest.mark.needs_fork)]
)
def test_broken_budget_without_a_terminal(
    run: Run, pytester: pytest.Pytester, options: list[str]
) -> None:
    """With `-p no:terminal`, which takes options away too, a broken budget is a failure as ever."""
    pytester.makepyfile(OVER_ONE)

    result = run("-p", "no:terminal", *options)

    assert (pytest.ExitCode.TESTS_FAILED, "") == (result.ret, str(result.stderr))


@pytest.mark.parametrize(
    "options", [[], pytest.param(["--imu-isolate=all"], marks=pytest.mark.needs_fork)]
)
def test_broken_budget_is_one_line_that_points_at_its_test(
    run: Run, pytester: pytest.Pytester, options: list[str]
) -> None:
    """With `--tb=line` a broken budget is said once, at its test; no other failure is touched."""
    pytester.makepyfile(
        test_over=OVER_ONE, test_other="import pytest\ndef test_own(): pytest.fail('own')"
    )

    lines = run("--tb=line", *options).outlines

    start = next(place for place, line in enumerate(lines) if " FAILURES " in line)
    end = next(place for place in range(start + 1, len(lines)) if lines[place].startswith("===="))
    failures = lines[start + 1 : end]
    assert f"{pytester.path / 'test_other.py'}:2: Failed: own" in failures
    [over] = [line for line in failures if "is over" in line]
    path = re.escape(str(pytester.path / "test_over.py"))
    assert re.match(rf"{path}:[45]: Failed: peak \d\.\d MiB is over max_peak_mib\(1\)", over)
    assert "recorder.py" not in "\n".join(lines)
