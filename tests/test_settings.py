"""A value that makes no sense ends the run before the first test; the error names source and value."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from running import run_here

Run = Callable[..., pytest.RunResult]

LIMIT = "a number of MiB, 0 or more, or None"
SHAPE = "one limit without a name, and optionally phase="
PHASE = 'phase to be "call", "setup" or "all"'
COUNT = "a whole number, 0 or more"
MIB = "a number of MiB, 0 or more"
SORT = "peak, delta, total, time or name"
FILE = "the path of a file"
RUNS = """
    from pathlib import Path

    def test_runs():
        Path("ran").touch()
"""
BAD_MARKERS = {
    "max_peak_mib('100')": LIMIT,
    "max_peak_mib('100 MB')": LIMIT,
    "max_peak_mib(-1)": LIMIT,
    "max_peak_mib(nan)": LIMIT,
    "max_peak_mib(inf)": LIMIT,
    "max_peak_mib(True)": LIMIT,
    "max_peak_mib([100])": LIMIT,
    "max_peak_mib(1j)": LIMIT,
    "max_delta_mib()": SHAPE,
    "max_delta_mib(1, 2)": SHAPE,
    "max_delta_mib(limit=1)": SHAPE,
    "max_delta_mib(1, phse='call')": SHAPE,
    "max_delta_mib(1, phase='teardown')": PHASE,
    "max_delta_mib(1, phase=None)": PHASE,
    "max_delta_mib(None, phase=['call'])": PHASE,
}
"""Every marker that is refused, as its author typed it, and what was expected."""

needs_typed_ini = pytest.mark.skipif(
    pytest.version_tuple < (9,), reason="needs pytest 9: older ones have no [tool.pytest] table"
)


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """Return a function that runs pytest with this plugin and no other, on a test that leaves a file."""
    pytester.makepyfile(test_runs=RUNS)
    return functools.partial(run_here, pytester)


def errors_of(result: pytest.RunResult, folder: Path) -> list[str]:
    """Return the lines of the usage error, once it is proved to be one and that no test ran."""
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    assert not (folder / "ran").exists()
    assert "INTERNALERROR" not in result.stdout.str()
    text = result.stderr.str()
    assert 1 == text.count("ERROR: ")
    return text.partition("ERROR: ")[2].rstrip("\n").splitlines()


def file_with_bad_markers() -> tuple[str, list[str]]:
    """Return a test file with every bad marker, and the line that each must give."""
    tests = ["import pytest", "from math import inf, nan"]
    lines = []
    for number, (marker, expected) in enumerate(BAD_MARKERS.items()):
        tests += [f"@pytest.mark.{marker}", f"def test_{number}(): pass"]
        lines.append(f"test_bad.py::test_{number}: invalid {marker}: expected {expected}")
    return "\n".join(tests), lines


# --- markers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--no-imu"], ["--collect-only"]])
def test_bad_markers_are_all_listed(run: Run, pytester: pytest.Pytester, options: list[str]) -> None:
    """One run lists every marker at fault, each with its test, its value and what was expected."""
    tests, lines = file_with_bad_markers()
    pytester.makepyfile(test_bad=tests)

    assert lines == errors_of(run(*options), pytester.path)


def test_bad_markers_are_all_listed_under_xdist(run: Run, pytester: pytest.Pytester) -> None:
    """Under `-n 2` the error is the same, is said once, and no worker runs a test."""
    pytest.importorskip("xdist")
    tests, lines = file_with_bad_markers()
    pytester.makepyfile(test_bad=tests)

    assert lines == errors_of(run("-p", "xdist", "-n", "2"), pytester.path)


def test_bad_marker_is_found_on_every_level(run: Run, pytester: pytest.Pytester) -> None:
    """A marker without parentheses, on a class, a module or a parameter names each test that has it."""
    pytester.makepyfile(
        test_module="""
            import pytest

            pytestmark = pytest.mark.max_delta_mib("module")

            def test_plain():
                pass
        """,
        test_levels="""
            import pytest

            @pytest.mark.max_peak_mib
            def test_bare():
                pass

            @pytest.mark.max_peak_mib("class")
            class TestClass:
                @pytest.mark.max_delta_mib(1)
                def test_method(self):
                    pass

            @pytest.mark.max_delta_mib(1)
            @pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.max_peak_mib(-2))])
            def test_parameter(n):
                pass
        """,
    )

    assert [
        f"test_levels.py::test_bare: invalid max_peak_mib(): expected {SHAPE} and hard=",
        f"test_levels.py::TestClass::test_method: invalid max_peak_mib('class'): expected {LIMIT}",
        f"test_levels.py::test_parameter[2]: invalid max_peak_mib(-2): expected {LIMIT}",
        f"test_module.py::test_plain: invalid max_delta_mib('module'): expected {LIMIT}",
    ] == errors_of(run(), pytester.path)


def test_bad_marker_on_a_deselected_test_is_no_error(run: Run, pytester: pytest.Pytester) -> None:
    """What is not going to run is not looked at."""
    pytester.makepyfile(test_bad=file_with_bad_markers()[0])

    run("-k", "test_runs").assert_outcomes(passed=1, deselected=len(BAD_MARKERS))

    assert (pytester.path / "ran").exists()


@pytest.mark.needs_numpy
def test_every_kind_of_number_is_a_limit(run: Run, pytester: pytest.Pytester) -> None:
    """Integers, floats, fractions, numpy's numbers, and None are limits; 0 is one too."""
    pytester.makepyfile(
        test_numbers="""
            from fractions import Fraction
            import numpy as np
            import pytest

            limits = [0, 64, 64.5, Fraction(1, 3), np.float64(64), np.float32(0.5), np.int64(3), None]

            @pytest.mark.parametrize(
                "limit", [pytest.param(x, marks=pytest.mark.max_delta_mib(x)) for x in limits]
            )
            def test_number(limit):
                pass
        """
    )

    result = run("--no-imu", "test_numbers.py")

    result.assert_outcomes(passed=8)
    result.stdout.fnmatch_lines(["7 budgets not enforced: --no-imu"])


def test_registered_markers_pass_strict_checks(run: Run, pytester: pytest.Pytester) -> None:
    """With `--strict-markers` a misspelled budget is an error, and the right ones are known."""
    pytester.makepyfile(
        test_good="import pytest\n@pytest.mark.max_peak_mib(50)\n@pytest.mark.max_delta_mib(50)\n"
        "def test_good(): pass",
        test_bad="import pytest\n@pytest.mark.max_peak_mb(50)\ndef test_bad(): pass",
    )

    good = run("--strict-markers", "test_good.py")
    bad = run("--strict-markers", "test_bad.py")

    good.assert_outcomes(passed=1)
    bad.assert_outcomes(errors=1)
    bad.stdout.fnmatch_lines(["*'max_peak_mb' not found in `markers` configuration option*"])


def test_marker_arguments_are_shown_whatever_they_are(run: Run, pytester: pytest.Pytester) -> None:
    """A repr that raises, escape codes, and what is very long give a line that a terminal can show."""
    pytester.makepyfile(
        test_bad="""
            import pytest

            class Mute:
                def __repr__(self):
                    raise RuntimeError("no words")

            class Red:
                def __repr__(self):
                    return "\x1b[31m"

            @pytest.mark.max_peak_mib(Mute())
            def test_mute(): pass

            @pytest.mark.max_events(Mute(), 1)
            def test_mute_event(): pass

            @pytest.mark.max_peak_mib(1, phase=Red())
            def test_red(): pass

            @pytest.mark.max_peak_mib("x" * 100_000)
            def test_long(): pass

            @pytest.mark.max_delta_mib(10**400)
            def test_many_digits(): pass

            @pytest.mark.max_delta_mib(10**5000)
            def test_more_digits_than_python_prints(): pass

            @pytest.mark.max_delta_mib(*["x" * 100] * 1000)
            def test_many(): pass
        """
    )

    lines = errors_of(run(), pytester.path)

    mute = "<Mute, whose repr raises RuntimeError>"
    assert f"test_bad.py::test_mute: invalid max_peak_mib({mute}): expected {LIMIT}" == lines[0]
    assert f"test_bad.py::test_mute_event: invalid max_events({mute}, 1): expected an event" in lines[1]
    assert f"invalid max_peak_mib(1, phase=\\x1b[31m): expected {PHASE}" in lines[2]
    assert "invalid max_peak_mib('xxxx" in lines[3]
    assert "invalid max_delta_mib(1000" in lines[4]
    assert "invalid max_delta_mib(<int, whose repr raises ValueError>)" in lines[5]
    assert "invalid max_delta_mib('xxxx" in lines[6]
    assert 7 == len(lines)
    assert max(map(len, lines)) < 350


# --- options and ini ----------------------------------------------------------------------------

BAD_OPTIONS = [
    ("--imu-top=-1", "'-1'", COUNT),
    ("--imu-top=1.5", "'1.5'", COUNT),
    ("--imu-top=ten", "'ten'", COUNT),
    ("--imu-top=True", "'True'", COUNT),
    ("--imu-sort=size", "'size'", SORT),
    ("--imu-sort=Peak", "'Peak'", SORT),
    ("--imu-min-mib=1GB", "'1GB'", MIB),
    ("--imu-min-mib=", "''", MIB),
    ("--imu-max-peak-mib=-0.5", "'-0.5'", MIB),
    ("--imu-max-peak-mib=nan", "'nan'", MIB),
    ("--imu-max-delta-mib=inf", "'inf'", MIB),
    ("--imu-max-delta-mib=True", "'True'", MIB),
    ("--imu-json=", "''", FILE),
    ("--imu-log=", "''", FILE),
]


@pytest.mark.parametrize(("option", "value", "expected"), BAD_OPTIONS, ids=lambda text: text)
def test_bad_option_names_the_flag(
    run: Run, pytester: pytest.Pytester, option: str, value: str, expected: str
) -> None:
    """A bad value on the command line gives one line: the flag, the value, what was expected."""
    flag = option.partition("=")[0]

    line = f"invalid value {value} for {flag}: expected {expected}"
    assert [line] == errors_of(run(option), pytester.path)


@pytest.mark.parametrize(
    "flag", ["perf", "isolate", "simulate", "tolerance", "sort", "top", "min-mib", "json", "log"]
)
@pytest.mark.parametrize("value", ["x" * 300 + "/", "\x1b[31m" * 4000], ids=["long", "escapes"])
def test_long_value_is_an_error_on_one_short_line(
    run: Run, pytester: pytest.Pytester, flag: str, value: str
) -> None:
    """What is longer than a file's name can be, or moves a cursor, is refused like any other value."""
    [line] = errors_of(run(f"--imu-{flag}={value}"), pytester.path)

    assert line.startswith("invalid value '")
    assert f" for --imu-{flag}: expected " in line
    assert line.isprintable()
    assert len(line) < 350


@pytest.mark.parametrize(
    ("key", "typed", "expected"),
    [
        ("imu", "maybe", "true or false"),
        ("imu_top", "-1", COUNT),
        ("imu_top", "1.5", COUNT),
        ("imu_sort", "size", SORT),
        ("imu_min_mib", "nan", MIB),
        ("imu_max_peak_mib", "100 MB", MIB),
        ("imu_max_delta_mib", "-3", MIB),
        ("imu_on_breach", "explode", "fail or warn"),
        ("imu_trim", "sometimes", "true or false"),
    ],
)
def test_bad_ini_value_names_the_key_and_the_file(
    run: Run, pytester: pytest.Pytester, key: str, typed: str, expected: str
) -> None:
    """A bad value in an ini file gives one line: the key, the file, the value, what was expected."""
    pytester.makefile(".ini", pytest=f"[pytest]\n{key} = {typed}")

    [line] = errors_of(run(), pytester.path)

    assert f"invalid value {typed!r} for {key} in pytest.ini: expected {expected}" == line


def test_bad_override_names_itself_and_a_good_flag_hides_a_bad_ini(
    run: Run, pytester: pytest.Pytester
) -> None:
    """What `-o` set is named so; a value that the command line replaces is not looked at."""
    pytester.makefile(".ini", pytest="[pytest]\nimu_sort = size")

    [line] = errors_of(run("-o", "imu_sort=weight"), pytester.path)

    assert f"invalid value 'weight' for -o imu_sort: expected {SORT}" == line
    run("--imu-sort=name").assert_outcomes(passed=1)


@pytest.mark.parametrize("flag", ["--imu-json", "--imu-log"])
def test_path_that_cannot_be_written_is_an_error_at_the_start(
    run: Run, pytester: pytest.Pytester, flag: str
) -> None:
    """A folder, and a path below a file, are refused before the first test, with the system's reason."""
    (pytester.path / "folder").mkdir()
    (pytester.path / "file").touch()
    for path in ("folder", "file/below.json"):
        [line] = errors_of(run(f"{flag}={path}"), pytester.path)

        assert line.startswith("invalid value ")
        assert f"{path}' for {flag}: expected a file that can be written (" in line


def test_no_imu_needs_no_writable_path(run: Run, pytester: pytest.Pytester) -> None:
    """With `--no-imu` no file is written, so no path is tried."""
    (pytester.path / "folder").mkdir()

    run("--no-imu", "--imu-json=folder", "--imu-log=folder").assert_outcomes(passed=1)


def test_bad_option_is_one_error_under_xdist(run: Run, pytester: pytest.Pytester) -> None:
    """Under `-n 2` a bad option ends the run before a worker is started."""
    pytest.importorskip("xdist")

    result = run("-p", "xdist", "-n", "2", "--imu-top=-1")

    line = f"invalid value '-1' for --imu-top: expected {COUNT}"
    assert [line] == errors_of(result, pytester.path)
    result.stdout.no_fnmatch_line("*workers*")


# --- TOML ---------------------------------------------------------------------------------------

GOOD_TOML = """
    imu = true
    imu_top = 1
    imu_sort = "name"
    imu_min_mib = 0.0
    imu_max_peak_mib = 500
    imu_max_delta_mib = 250.5
    imu_tolerance = 0.5
    imu_on_breach = "warn"
    imu_trim = true
    imu_gc = false
    imu_junit = false
"""


@pytest.mark.parametrize(
    "table", ["tool.pytest.ini_options", pytest.param("tool.pytest", marks=needs_typed_ini)]
)
def test_toml_takes_real_numbers_and_booleans(run: Run, pytester: pytest.Pytester, table: str) -> None:
    """Numbers and booleans of TOML are accepted as they are, in the old table and in pytest 9's own."""
    pytester.makepyprojecttoml(f"[{table}]{GOOD_TOML}")
    pytester.makepyfile(test_more="def test_more(): pass")

    result = run()

    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["1 of 2 tests, by name; --imu-top=0 shows all"])


@pytest.mark.parametrize(
    ("typed", "value", "expected"),
    [
        ("imu = 1", "1", "true or false"),
        ("imu_top = true", "True", COUNT),
        ("imu_top = 1.5", "1.5", COUNT),
        ("imu_min_mib = true", "True", MIB),
        ("imu_max_peak_mib = nan", "nan", MIB),
        ("imu_max_peak_mib = -1", "-1", MIB),
        ("imu_max_delta_mib = '100'", "'100'", MIB),
        ("imu_sort = ['peak']", "['peak']", SORT),
        ("imu_on_breach = false", "False", "fail or warn"),
    ],
)
@needs_typed_ini
def test_toml_of_the_wrong_type_names_the_key_and_the_file(
    run: Run, pytester: pytest.Pytester, typed: str, value: str, expected: str
) -> None:
    """In pytest 9's own table a value of the wrong type gives the key, the file, the value, and more."""
    pytester.makepyprojecttoml(f"[tool.pytest]\n{typed}")

    [line] = errors_of(run(), pytester.path)

    key = typed.partition(" ")[0]
    assert f"invalid value {value} for {key} in pyproject.toml: expected {expected}" == line
