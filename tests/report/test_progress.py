"""With `--imu -v` each test's line ends with its peak."""

from __future__ import annotations

import re

import pytest

SUITE = """
    import pytest

    def test_passes():
        b"x" * (20 << 20)

    def test_fails():
        assert not b"x" * (10 << 20)

    @pytest.mark.skip
    def test_skipped():
        pass

    @pytest.mark.xfail
    def test_xfails():
        assert 0

    @pytest.fixture
    def broken():
        raise ValueError("not today")

    def test_error(broken):
        pass
"""


def outcomes(result: pytest.RunResult) -> dict[str, str]:
    """Return what stands behind each test's name while the tests run, peaks without their decimals."""
    shown = re.findall(r"^test_it\.py::(\w+) (.*?) +\[ *\d+%\]$", str(result.stdout), re.MULTILINE)
    return {name: re.sub(r"(\d)\.\d", r"\1", said) for name, said in shown}


def run(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    """Run the suite, with this plugin and no other."""
    pytester.makepyfile(test_it=SUITE)
    return pytester.runpytest_subprocess("-p", "imu", "--tb=no", *options)


@pytest.mark.needs_kernel_peaks
def test_each_line_ends_with_its_peak(pytester: pytest.Pytester) -> None:
    """What ran has its peak behind its outcome; what did not has none, and the summary is pytest's."""
    result = run(pytester, "--imu", "-v", "-rA", "--color=no")

    said = outcomes(result)
    assert re.fullmatch(r"PASSED \(peak (20|19) MiB\)", said["test_passes"])
    assert re.fullmatch(r"FAILED \(peak \d+ MiB\)", said["test_fails"])
    assert "XFAIL (peak 0 MiB)" == said["test_xfails"]
    assert ("SKIPPED (unconditional skip)", "ERROR") == (said["test_skipped"], said["test_error"])
    result.stdout.fnmatch_lines(["PASSED test_it.py::test_passes", "XFAIL test_it.py::test_xfails*"])
    result.assert_outcomes(passed=1, failed=1, skipped=1, xfailed=1, errors=1)


@pytest.mark.parametrize("options", [("-v",), ("-v", "--imu", "--no-imu"), ("--imu",)])
def test_nothing_is_added_where_it_was_not_asked_for(
    pytester: pytest.Pytester, options: tuple[str, ...]
) -> None:
    """Without `--imu`, with `--no-imu` and without `-v` the progress is pytest's own."""
    result = run(pytester, *options)

    result.stdout.no_fnmatch_line("*(peak *")
    result.assert_outcomes(passed=1, failed=1, skipped=1, xfailed=1, errors=1)


@pytest.mark.needs_kernel_peaks
def test_peaks_of_workers(pytester: pytest.Pytester) -> None:
    """Under xdist the outcome comes before the name, and the peak with it."""
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")

    result = run(pytester, "-p", "xdist", "-n1", "--imu", "-v")

    result.stdout.fnmatch_lines(["[[]gw0] * PASSED (peak *.? MiB) test_it.py::test_passes*"])


def test_colours_stay(pytester: pytest.Pytester) -> None:
    """A word that another plugin gave a colour keeps it."""
    pytester.makeconftest(
        """
        import pytest

        @pytest.hookimpl(tryfirst=True)
        def pytest_report_teststatus(report):
            if report.when == "call" and report.passed:
                return "passed", ".", ("FINE", {"purple": True})
        """
    )

    result = run(pytester, "--imu", "-v", "--color=yes")

    assert re.search(r"\x1b\[35mFINE \(peak \S+ MiB\)", str(result.stdout))
