"""`--imu-html` and `pytest-imu html`: one page, from the run or from its file."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from pytest_imu.__main__ import main
from pytest_imu.html.page import templates
from running import JSON, LOG, run, run_here

SUITE = """
    import pytest

    @pytest.mark.max_peak_mib(5)
    def test_broken(imu):
        with imu.measure("make"):
            kept = bytearray(20 << 20)
            kept[::4096] = b"x" * len(kept[::4096])

    @pytest.mark.parametrize("text", ["<b>", "</script>"])
    def test_named(text):
        pass
"""


def read(path: Path) -> str:
    """Return a page."""
    return path.read_text(encoding="ascii")


def test_the_file_makes_the_page_of_the_run(
    pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which is written without --imu too, into a folder that is made for it."""
    pytester.makepyfile(SUITE)
    run(pytester, "--imu-html=deep/er/imu.html", JSON, "--imu-why").assert_outcomes(passed=2, failed=1)
    page = read(pytester.path / "deep" / "er" / "imu.html")
    assert "1 budget broken" in page
    assert "block make" in page
    assert "Where the peak was reached, in a second run" in page
    capsys.readouterr()
    assert 0 == main(["html", "run.json"])
    assert "imu.html: 3 tests\n" == capsys.readouterr().out
    assert page == read(pytester.path / "imu.html")


def test_the_workers_tests_are_on_one_page(pytester: pytest.Pytester) -> None:
    """Under pytest-xdist the controller writes it, with a band for each worker."""
    pytester.makepyfile(SUITE)
    run(pytester, "-p", "xdist", "-n", "2", "--imu-html=imu.html").assert_outcomes(passed=2, failed=1)
    page = read(pytester.path / "imu.html")
    assert "on 2 workers" in page
    assert {"gw0", "gw1"} == set(re.findall(r"<h3>(\w+)</h3>", page))


def test_a_killed_run_has_a_page(pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]) -> None:
    """From its run log, in which one test has no end."""
    pytester.makepyfile("import os\ndef test_a(): pass\ndef test_kills(): os.kill(os.getpid(), 9)")
    run(pytester, LOG)
    assert 0 == main(["html", "run.jsonl", "-o", "-"])
    page = capsys.readouterr().out
    assert "1 test did not come to an end" in page
    assert "test_a_killed_run_has_a_page.py::test_kills" in page


def test_an_earlier_run_can_stand_beside_it(pytester: pytest.Pytester) -> None:
    """In the run and offline; there it ends with 1 where something grew too much."""
    pytester.makepyfile(test_it="def test_it(): pass")
    run(pytester, "--imu-json=base.json")
    pytester.makepyfile(test_it="def test_it(): kept = b'x' * (20 << 20)")
    run(pytester, JSON, "--imu-compare=base.json", "--imu-html=run.html")
    assert 0 == main(["html", "run.json", "--base=base.json"])
    assert 1 == main(["html", "run.json", "--base=base.json", "--fail-increase=10%+2"])
    for name in ("run.html", "imu.html"):
        page = read(pytester.path / name)
        assert "1 test grew" in page
        assert "in base.json: grew" in page


@pytest.mark.parametrize("value", ["-", ".", "/dev/stdout", "test_it.py/imu.html"])
def test_what_cannot_be_written_is_refused(pytester: pytest.Pytester, value: str) -> None:
    """Before the first test runs."""
    pytester.makepyfile(test_it="def test_it(): raise SystemExit('it ran')")
    result = run_here(pytester, f"--imu-html={value}")
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines(["ERROR: invalid value '*' for --imu-html: expected a file*"])


def test_it_has_a_file_of_its_own(pytester: pytest.Pytester) -> None:
    """Not that of the JSON."""
    result = run_here(pytester, "--imu-html=one", "--imu-json=one")
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines(["*expected a file other than that of --imu-*"])


def test_nothing_is_written_where_nothing_ran(pytester: pytest.Pytester) -> None:
    """With --no-imu that is said."""
    pytester.makepyfile(test_it="def test_it(): pass")
    assert 0 == run_here(pytester, "--imu-html=imu.html", "--collect-only").ret
    result = run_here(pytester, "--imu-html=imu.html", "--no-imu")
    result.stdout.fnmatch_lines(["*imu.html not written: --no-imu"])
    assert not pytester.path.joinpath("imu.html").exists()


def test_a_folder_that_goes_away_is_said(pytester: pytest.Pytester) -> None:
    """The run ends as it would have, and the section names the file."""
    pytester.makepyfile(test_it="import shutil\ndef test_it(): shutil.rmtree('out')")
    result = run(pytester, "--imu-html=out/imu.html")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["--imu-html: *imu.html could not be written: *"])


LEFT_BROKEN = """
    import datetime, json, os, re, sys, time

    def refuse(*args, **kwargs):
        raise ZeroDivisionError("left broken")

    def test_breaks():
        json.dumps = json.JSONEncoder.encode = json.loads = refuse
        os.open = os.write = os.close = os.replace = os.getpid = time.time = refuse
        datetime.datetime = None
        sys.path[:] = []
        sys.modules.pop("jinja2")
"""


def test_what_tests_leave_broken_costs_nothing(pytester: pytest.Pytester) -> None:
    """What the page needs was imported, bound and read before the first test."""
    pytester.makepyfile(LEFT_BROKEN)
    result = run(pytester, "-p", "no:cacheprovider", "--imu-html=imu.html")
    result.assert_outcomes(passed=1)
    assert "test_breaks" in read(pytester.path / "imu.html")


def test_a_fault_of_our_own_is_a_warning(pytester: pytest.Pytester) -> None:
    """It decides about no test, nor about the run."""
    suite = """
        import sys

        def test_breaks():
            sys.modules["pytest_imu.html.page"].parts_of = None
    """
    pytester.makepyfile(suite)
    result = run(pytester, "--imu-html=imu.html")
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(["*PytestWarning: imu: --imu-html: *imu.html could not be written*"])
    assert [] == [path.name for path in pytester.path.iterdir() if "imu" in path.name]


def test_the_verb_does_not_write_over_what_it_reads(
    pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends with 2 and one line, as for a file that is not there."""
    pytester.makepyfile(test_it="def test_it(): pass")
    run(pytester, JSON)
    before = pytester.path.joinpath("run.json").read_bytes()
    capsys.readouterr()
    assert 2 == main(["html", "run.json", "-o", "run.json"])
    expected = "pytest-imu: invalid file 'run.json': expected another file to write than those to read\n"
    assert expected == capsys.readouterr().err
    assert before == pytester.path.joinpath("run.json").read_bytes()
    assert 2 == main(["html", "-", "--base", "r*.json", "-o", "run.json"])
    assert before == pytester.path.joinpath("run.json").read_bytes()
    assert 2 == main(["html", "none.json"])


def test_without_jinja_the_verb_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Before it reads or writes anything."""
    templates.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert 2 == main(["html", "none.json", "-o", str(tmp_path / "imu.html")])
    expected = "pytest-imu: the page needs Jinja2: pip install 'pytest-imu[html]'\n"
    assert expected == capsys.readouterr().err
    assert [] == list(tmp_path.iterdir())
