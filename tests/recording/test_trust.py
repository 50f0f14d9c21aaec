"""Numbers to trust: reused memory, noise, tolerance, tracebacks and tracers, each said in its place."""

from __future__ import annotations

import json
import re

import pytest

from pytest_imu.core.units import MIB
from pytest_imu.history.headroom import suggested_mib
from running import run_and_read

UNDECIDED = ("-o", "imu_confirm=false")
"""Leaves verdicts in doubt: no test is run once more."""
SMALL_OBJECTS = """
    import pytest

    kept = []

    def test_keeps_a_hundredth():
        objects = [bytes(64) for _ in range(500_000)]
        kept.extend(objects[::100])

    @pytest.mark.max_peak_mib(20)
    def test_reuses_the_rest():
        assert [bytes(64) for _ in range(300_000)]

    @pytest.mark.max_peak_mib(500)
    def test_budget_beyond_all_doubt():
        assert [bytes(64) for _ in range(300_000)]
"""


@pytest.mark.needs_kernel_peaks
def test_reused_memory_is_said(pytester: pytest.Pytester) -> None:
    """What a test may have reused stands beside its peak, and covers what the peak does not show."""
    pytester.makepyfile(test_it=SMALL_OBJECTS)

    result, tests = run_and_read(pytester, "--imu", *UNDECIDED)

    result.assert_outcomes(passed=3)
    call = tests["test_reuses_the_rest"]["phases"]["call"]
    truth_bytes = 300_000 * (97 + 8)  # 64 bytes and 33 of header in blocks of 112, and the list
    assert call["peak_bytes"] < truth_bytes / 2
    assert call["peak_bytes"] + call["reusable_bytes"] >= truth_bytes
    reusable = round(call["reusable_bytes"] / MIB)
    result.stdout.re_match_lines([rf" *\d+\.\d \(\+{reusable} reusable\) .* test_it.py::test_reuses"])


@pytest.mark.needs_kernel_peaks
def test_budget_on_reused_memory_is_unchecked(pytester: pytest.Pytester) -> None:
    """A budget kept on reused memory is named with the way out; one that it cannot break holds."""
    pytester.makepyfile(test_it=SMALL_OBJECTS)

    result, tests = run_and_read(pytester, *UNDECIDED)

    result.stdout.re_match_lines(
        [
            "1 budget not checked: reused memory; --imu-isolate=budgets runs these tests where there .*",
            r"  test_it.py::test_reuses_the_rest: max_peak_mib\(20\) at \d+\.\d\d MiB",
        ]
    )
    [budget] = tests["test_reuses_the_rest"]["budgets"]
    assert ("unchecked", "reused memory") == (budget["verdict"], budget["reason"])
    assert 0 <= budget["actual"] < 20
    assert ["kept"] == [one["verdict"] for one in tests["test_budget_beyond_all_doubt"]["budgets"]]


@pytest.mark.needs_kernel_peaks
def test_failure_is_charged_for_what_it_keeps(pytester: pytest.Pytester) -> None:
    """What a failed test's traceback keeps is in its own delta, and gone before the next begins."""
    pytester.makepyfile(
        test_it="""
        def test_fails():
            held = b"x" * (60 << 20)
            assert not len(held)

        def test_next():
            held = b"x" * (40 << 20)
        """
    )

    result, tests = run_and_read(pytester, "--imu")

    result.assert_outcomes(passed=1, failed=1)
    failed, following = (tests[name]["phases"]["call"] for name in ("test_fails", "test_next"))
    assert abs(failed["delta_bytes"] - 60 * MIB) <= MIB / 2
    assert following["before_bytes"] < failed["before_bytes"] + 2 * MIB
    assert abs(following["peak_bytes"] - 40 * MIB) <= MIB / 2
    assert abs(following["delta_bytes"]) < MIB / 2


@pytest.mark.needs_kernel_peaks
def test_noise_is_measured_and_printed(pytester: pytest.Pytester) -> None:
    """The legend has the noise of this session; a budget nearer than it is named as unreliable."""
    pytester.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.max_delta_mib(0.05)
        def test_near():
            pass

        @pytest.mark.max_peak_mib(30)
        def test_far():
            b"x" * (20 << 20)
        """
    )

    result, tests = run_and_read(pytester, "--imu")

    result.stdout.re_match_lines(
        [
            r"RSS in MiB: .*",
            r"  noise of an empty window ± 0\.\d MiB",
            r"1 budget unreliable, nearer to the limit than the noise of 0\.\d MiB:",
            r"  test_it.py::test_near: max_delta_mib\(0.05\) kept at -?0\.\d\d MiB",
        ]
    )
    assert [True, False] == [
        tests[name]["budgets"][0]["unreliable"] for name in ("test_near", "test_far")
    ]
    document = json.loads((pytester.path / "run.json").read_text(encoding="ascii"))
    assert 0 < document["environment"]["noise_floor_bytes"] < MIB


NEARLY = """
    import pytest

    @pytest.mark.max_peak_mib(19)
    def test_a_little_over():
        b"x" * (20 << 20)
"""


@pytest.mark.needs_kernel_peaks
@pytest.mark.parametrize(
    ("args", "verdict"),
    [
        ((), "broken"),
        (("--imu-tolerance=0.2",), "broken"),
        (("--imu-tolerance=2",), "kept"),
        (("--imu-tolerance=10%",), "kept"),
        (("-o", "imu_tolerance=10 %"), "kept"),
        (("-o", "imu_tolerance=2", "--imu-tolerance=0"), "broken"),
    ],
)
def test_tolerance(pytester: pytest.Pytester, args: tuple[str, ...], verdict: str) -> None:
    """A tolerance, of MiB or percent, from the command line or the ini file, is added to a budget."""
    pytester.makepyfile(test_it=NEARLY)

    result, tests = run_and_read(pytester, *args)

    assert [verdict] == [one["verdict"] for one in tests["test_a_little_over"]["budgets"]]
    result.assert_outcomes(passed=int(verdict == "kept"), failed=int(verdict == "broken"))
    if "--imu-tolerance=0.2" in args:
        result.stdout.fnmatch_lines(["*is over max_peak_mib(19) plus its tolerance of 0.2 MiB by 0.*"])


@pytest.mark.needs_kernel_peaks
def test_suggested_markers_hold(pytester: pytest.Pytester) -> None:
    """Each test that passed gets a marker to paste; pasted, every budget is kept, and reliably."""
    source = """
import pytest

def test_large():
    b"x" * (39 << 20)  # and a quarter more is not near a whole number

def test_none():
    pass

def test_fails():
    assert 0

@pytest.mark.skip
def test_skipped():
    pass
"""
    pytester.makepyfile(test_it=source)
    result, _ = run_and_read(pytester, "--imu-suggest", "--imu-min-mib=0")
    suggested = re.findall(r"^  (@pytest\S+) +test_it.py::(\w+)$", str(result.stdout), re.MULTILINE)
    assert ["test_large", "test_none"] == [name for _, name in suggested]
    assert "@pytest.mark.max_peak_mib(49)" == suggested[0][0]

    for marker, name in suggested:
        source = source.replace(f"def {name}(", f"{marker}\ndef {name}(")
    pytester.makepyfile(test_it=source)
    _, tests = run_and_read(pytester)

    budgets = [tests[name]["budgets"] for _, name in suggested]
    assert [("kept", False)] * 2 == [(one["verdict"], one["unreliable"]) for [one] in budgets]


@pytest.mark.needs_kernel_peaks
def test_suggestion_for_all_parameters(pytester: pytest.Pytester) -> None:
    """A function's marker is one for all of its parameters: the largest that any of them needs."""
    pytester.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.parametrize("mib", [1, 39, 8], ids=["a", "b::c", "[d]"])
        def test_sizes(mib):
            b"x" * (mib << 20)
        """
    )

    result, _ = run_and_read(pytester, "--imu-suggest")

    line = r"^  @pytest.mark.max_peak_mib\(49\) +test_it.py::test_sizes  \(the largest of 3\)$"
    assert 1 == len(re.findall(line, str(result.stdout), re.MULTILINE))
    assert 1 == str(result.stdout).count("@pytest")


@pytest.mark.needs_kernel_peaks
def test_small_tests_get_no_suggestion(pytester: pytest.Pytester) -> None:
    """Below 5 MiB, or what `--imu-min-mib` says, no marker is printed, and a line says so."""
    pytester.makepyfile(
        test_it="""
        def test_large():
            b"x" * (8 << 20)

        def test_medium():
            b"x" * (3 << 20)

        def test_small():
            pass
        """
    )

    usual = run_and_read(pytester, "--imu-suggest")[0].outlines
    from_2 = run_and_read(pytester, "--imu-suggest", "--imu-min-mib=2")[0].outlines
    from_50 = run_and_read(pytester, "--imu-suggest", "--imu-min-mib=50")[0].outlines
    of_all = run_and_read(pytester, "--imu-suggest", "--imu-min-mib=0")[0].outlines

    assert ["large"] == suggested_for(usual)
    assert "2 tests under 5 MiB left out; --imu-min-mib=0 suggests for all" in usual
    assert ["large", "medium"] == suggested_for(from_2)
    assert "1 test under 2 MiB left out; --imu-min-mib=0 suggests for all" in from_2
    assert [] == suggested_for(from_50)
    assert (
        "no budget to suggest: 3 tests under 50 MiB left out; --imu-min-mib=0 suggests for all"
        in from_50
    )
    assert ["large", "medium", "small"] == suggested_for(of_all)
    assert [] == [line for line in of_all if "left out" in line]


def suggested_for(lines: list[str]) -> list[str]:
    """Return the tests for which a marker was printed."""
    return [line.partition("::test_")[2] for line in lines if line.startswith("  @pytest.mark.")]


def test_nothing_to_suggest(pytester: pytest.Pytester) -> None:
    """Where no test passed, that is said."""
    pytester.makepyfile("def test_fails(): assert 0")
    result, _ = run_and_read(pytester, "--imu-suggest")
    result.stdout.fnmatch_lines(["no budget to suggest: no test passed that was measured"])


@pytest.mark.parametrize(
    ("peak_mib", "floor_mib", "expected"),
    [
        (100, 0.1, 130),  # two digits, upwards
        (80, 0.1, 100),
        (8, 0.1, 10),
        (7.99, 0.1, 10),
        (0.88, 0.1, 1.1),
        (1000, 0.1, 1300),
        (0, 0.5, 1),
        (0, 0.1, 0.2),
        (1, 0.5, 2),  # 1.25 is nearer than twice the floor
        (0, 0, 0.1),
    ],
)
def test_suggested_limit(peak_mib: float, floor_mib: float, expected: float) -> None:
    """A quarter more, rounded up to two digits, and further away than what noise could bridge."""
    assert expected == suggested_mib(round(peak_mib * MIB), round(floor_mib * MIB))


@pytest.mark.parametrize(
    ("conftest", "said"),
    [
        ("", None),
        ("import tracemalloc; tracemalloc.start()", "tracemalloc"),
    ],
)
def test_tracer_is_named(pytester: pytest.Pytester, conftest: str, said: str | None) -> None:
    """Numbers that were taken under a tracer carry its name, in the section and in the JSON file."""
    pytester.makeconftest(conftest)
    pytester.makepyfile(test_it="def test_one(): pass")
    result, tests = run_and_read(pytester, "--imu")
    assert said == tests["test_one"]["phases"]["call"]["tracer"]
    line = f"traced by {said} in 1 row: their numbers include its memory"
    assert (said is not None) == (line in result.outlines)


def test_coverage_is_named(pytester: pytest.Pytester) -> None:
    """The same with pytest-cov, for real."""
    pytester.makepyfile(test_it="def test_one(): pass")
    result, tests = run_and_read(pytester, "--imu", "-p", "pytest_cov", "--cov=.")
    assert "coverage" == tests["test_one"]["phases"]["call"]["tracer"]
    result.stdout.fnmatch_lines(["traced by coverage in 1 row: their numbers include its memory"])


@pytest.mark.parametrize("collects", ["plugin", "conftest"])
def test_what_goes_between_setup_and_call(pytester: pytest.Pytester, collects: str) -> None:
    """What is freed there, in the heap's midst, hides nothing and is not charged to the call."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def garbage():
            circle = [bytearray(b"x" * 100_000) for _ in range(400)]
            circle.append(circle)
            return bytearray(b"x" * 120_000)  # above it in the heap, so that no page goes by itself

        def test_it(garbage):
            blocks = [bytearray(b"x" * 100_000) for _ in range(400)]
        """
    )
    if collects == "conftest":
        pytester.makeconftest(
            """
            import gc
            import pytest

            gc.disable()

            @pytest.hookimpl(wrapper=True)
            def pytest_runtest_call():
                gc.collect()
                return (yield)
            """
        )
    gc = ("-o", "imu_gc=true") if collects == "plugin" else ()
    _, tests = run_and_read(pytester, "--imu", *gc)
    call = tests["test_it"]["phases"]["call"]
    assert abs(call["peak_bytes"] - 40_000_000) <= MIB / 2
    assert abs(call["delta_bytes"]) <= MIB / 2
