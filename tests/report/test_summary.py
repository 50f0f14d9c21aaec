"""The summary in Markdown: what it says and in which order, and that no name of a test can spoil it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_imu.__main__ import main
from pytest_imu.core import document
from pytest_imu.core.budgets import Budget, Verdict
from pytest_imu.core.model import Measurement, Start
from pytest_imu.core.units import MIB
from pytest_imu.report.kept import kept_bytes, kept_lines
from pytest_imu.report.rows import Row
from pytest_imu.report.summary import CUT, code, cut, markdown


def a_row(nodeid: str, peak_mib: float = 10, *, kept_mib: float = 0, **more: Any) -> Row:
    """Return the row of a test that passed."""
    call = Measurement(
        before_bytes=0,
        after_bytes=round(kept_mib * MIB),
        rss_peak_bytes=round(max(peak_mib, kept_mib) * MIB),
        duration_ns=10**9,
        source="kernel",
        reusable_bytes=0,
    )
    return Row(nodeid=nodeid, outcome="passed", call=call, **more)


def verdict(outcome: Any, reason: str) -> Verdict:
    """Return what became of a budget."""
    return Verdict(budget=Budget(metric="peak", limit_mib=5), outcome=outcome, reason=reason)


def test_what_is_broken_comes_first() -> None:
    """Then the ten largest, and what is unchecked is counted."""
    rows = [a_row(f"a.py::test_{n}", n) for n in range(12)]
    rows[3].verdicts = (verdict("broken", "peak 10.0 MiB is over max_peak_mib(5)"),)
    rows[4].verdicts = (verdict("unchecked", "reused memory"),)
    text = markdown(rows)
    assert text.startswith(
        "## Memory of the tests\n\n12 tests measured, 1 budget broken, 1 unchecked.\n\n"
        "- `a.py::test_3`: `peak 10.0 MiB is over max_peak_mib(5)`\n\n### Largest\n\n"
        "| peak MiB | kept MiB | time | test |\n| --: | --: | --: | --- |\n"
        "| 11.0 | 0.0 | 1.00s | `a.py::test_11` |\n"
    )
    assert text.endswith("| 2.0 | 0.0 | 1.00s | `a.py::test_2` |\n")


def test_a_run_without_tests_has_a_summary() -> None:
    """It says that nothing was measured."""
    assert markdown([]).startswith("## Memory of the tests\n\n0 tests measured, 0 budgets broken.\n")


@pytest.mark.parametrize(
    ("name", "plain", "in_table"),
    [
        ("a.py::test", "`a.py::test`", "`a.py::test`"),
        ("a|b", "`a|b`", r"`a\|b`"),
        ("a`b", "`` a`b ``", "`` a`b ``"),
        ("``", "``` `` ```", "``` `` ```"),
        ("<script>&lt;", "`<script>&lt;`", "`<script>&lt;`"),
        ("a\n|b\x1b", r"`a\n|b\x1b`", r"`a\n\|b\x1b`"),
        ("@user #1 __x__", "`@user #1 __x__`", "`@user #1 __x__`"),
    ],
)
def test_names_mean_nothing(name: str, plain: str, in_table: str) -> None:
    """They are code: no HTML, no mention, no new line, and in a table no new column."""
    assert (plain, in_table) == (code(name), code(name, in_table=True))


def test_it_is_cut_at_a_line_and_says_so() -> None:
    """What does not fit is left out whole, in bytes and not in characters."""
    text = "\u00e9\u00e9\u00e9\n" * 100
    assert text == cut(text, 700)
    shorter = cut(text, 100)
    assert shorter.endswith("\u00e9\n" + CUT)
    assert len(shorter.encode()) <= 100
    assert [("\u00e9" * 3) + "\n"] == list(
        dict.fromkeys(shorter.removesuffix(CUT).splitlines(keepends=True))
    )
    assert "" == cut(text, 0)


def began(second: int, *, machine: int = 0) -> Start:
    """Return when a test began, on one of several machines."""
    return Start((second + 10**9) * 10**9, (second + 1000 * machine) * 10**9)


def call(before_mib: float, after_mib: float) -> Measurement:
    """Return a test's call, from one size to another."""
    before_bytes, after_bytes = round(before_mib * MIB), round(after_mib * MIB)
    return Measurement(
        before_bytes=before_bytes,
        after_bytes=after_bytes,
        rss_peak_bytes=max(before_bytes, after_bytes),
        duration_ns=1,
        source="kernel",
    )


def test_what_a_test_kept_is_what_the_next_began_with() -> None:
    """What its teardown gave back is none of it; each worker and each machine has its own process."""
    rows = [
        Row(nodeid="a", worker="gw0", start=began(0), call=call(50, 114)),
        Row(nodeid="b", worker="gw1", start=began(1), call=call(60, 61)),
        Row(nodeid="c", worker="gw0", start=began(2), call=call(52, 116), isolated=True),
        Row(nodeid="d", worker="gw0", start=began(3), call=call(52, 116)),
        Row(nodeid="e", worker="gw0", start=began(4, machine=1), call=call(900, 903)),
        Row(nodeid="f", worker="gw1", call=call(65, 66)),
    ]
    assert [2, 1, 0, 64, 3, 1] == [size / MIB for size in kept_bytes(rows)]


def test_runs_of_one_machine_are_processes_of_their_own() -> None:
    """A run's last test is not followed by another run's first."""
    rows = [
        Row(nodeid="a", start=began(0), call=call(50, 400)),
        Row(nodeid="b", start=began(1), call=call(400, 401)),
        Row(nodeid="c", run=1, start=began(2), call=call(40, 140)),
    ]
    assert [350, 1, 100] == [size / MIB for size in kept_bytes(rows)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([a_row("a.py::x", kept_mib=9.9)], []),
        ([a_row("a.py::x", kept_mib=30, isolated=True)], []),
        (
            [a_row(f"tests/test_import.py::test_{n}", kept_mib=20) for n in range(20)]
            + [a_row("tests/test_qa.py::test", kept_mib=120), a_row("b.py::x", kept_mib=0.5)],
            ["the run kept 520 MiB: 400 in test_import.py (20 tests), 120 in test_qa.py"],
        ),
        (
            [a_row("a/test.py::x", kept_mib=30), a_row("b/test.py::x", kept_mib=20)],
            ["the run kept 50 MiB: 30 in a/test.py, 20 in b/test.py"],
        ),
        (
            [a_row("a.py::x", kept_mib=20, teardown_kept_bytes=-15 * MIB), a_row("b.py::x", kept_mib=8)],
            ["the run kept 13 MiB: 8 in b.py, 5 in a.py"],
        ),
    ],
    ids=["little", "isolated", "files", "same names", "given back"],
)
def test_where_the_memory_went(rows: Sequence[Row], expected: list[str]) -> None:
    """The files whose tests kept most are named, those of the same name by their whole paths."""
    assert expected == kept_lines(rows)


def test_the_verb_prints_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With an earlier run it says what grew, and fails only where it is told to."""
    environment: dict[str, Any] = {"python": "3.11"}
    paths = []
    for name, peak_mib in (("base.json", 10), ("now.json", 20)):
        rows = [a_row("a.py::test|a", peak_mib), a_row("a.py::test_b", 5)]
        document.write(tmp_path / name, (row.to_dict() for row in rows), environment)
        paths.append(str(tmp_path / name))
    assert 0 == main(["summary", paths[1], "--base", paths[0]])
    text = capsys.readouterr().out
    assert "Compared 2 tests: 1 grew, 1 same.\n" in text
    assert (
        "### Grown\n\n| was | change | of | test |\n| --: | --: | --- | --- |\n"
        "| 10.0 | +10.0 | `peak` | `a.py::test\\|a` |\n"
    ) in text
    assert text.index("### Grown") < text.index("### Largest")
    assert 1 == main(["summary", paths[1], "--base", paths[0], "--fail-increase=10%"])


@pytest.fixture
def run(pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """Return a function that runs one test that passes."""
    pytester.makepyfile(test_it="def test_a(): pass")
    return lambda *arguments: pytester.runpytest_subprocess("-p", "imu", *arguments)


def test_a_run_appends_it(
    run: Callable[..., pytest.RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes behind what is there, to a path or where GitHub shows it."""
    path = tmp_path / "summary.md"
    path.write_text("before\n", encoding="utf-8")
    assert 0 == run(f"--imu-summary={path}").ret
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    assert 0 == run("--imu-summary").ret
    text = path.read_text(encoding="utf-8")
    assert text.startswith("before\n## Memory of the tests\n\n1 test measured")
    assert 2 == text.count("## Memory of the tests\n")
    path.write_text("x" * 2**20, encoding="utf-8")
    run("--imu-summary")
    assert 2**20 == path.stat().st_size


def test_without_github_it_says_so(
    run: Callable[..., pytest.RunResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command line works on everybody's machine; a bad path is an error at the start."""
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    result = run("--imu-summary")
    assert 0 == result.ret
    result.stdout.fnmatch_lines(["--imu-summary: $GITHUB_STEP_SUMMARY is not set: nothing was written"])
    for value in ("test_it.py", ".", "-", ""):
        result = run(f"--imu-summary={value}")
        assert pytest.ExitCode.USAGE_ERROR == result.ret
        result.stderr.fnmatch_lines([f"ERROR: invalid value '{value}' for --imu-summary: expected *"])
