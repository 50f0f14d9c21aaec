"""`pytest-imu compare` and `pytest-imu report`: what they print, and what they exit with."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_imu.__main__ import main

if TYPE_CHECKING:
    from tests.history.conftest import Documents

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def two_runs(documents: Documents) -> list[str]:
    """Return the files of two runs, in the second of which one test grew from 10 to 20 MiB."""
    test = documents.test
    return [
        documents.write("base.json", test("a.py::test_grew", 10), test("a.py::test_same", 30)),
        documents.write("now.json", test("a.py::test_grew", 20), test("a.py::test_same", 30)),
    ]


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        ([], 0),
        (["--fail-increase=10%+2"], 1),
        (["--fail-increase=200%"], 0),
        (["--fail-increase=200%", "--fail-increase=delta:1"], 1),
        (["--fail-increase=200%,delta:1"], 1),
    ],
)
def test_compare_fails_where_it_is_told_to(
    two_runs: list[str], capsys: Capture, flags: list[str], status: int
) -> None:
    """Without an increase it only tells; with one or several it fails for what grew past any."""
    assert status == main(["compare", *two_runs, *flags])
    told = capsys.readouterr()
    assert "" == told.err
    assert ["compared 2 tests"] == [
        line.partition(":")[0] for line in told.out.splitlines() if line.startswith("compared")
    ]


def test_compare_prints_the_table(two_runs: list[str], capsys: Capture) -> None:
    """The largest change, the one line, and the failures as pytest would have them."""
    main(["compare", *two_runs, "--fail-increase=10%"])
    assert [
        " was   now  change  test",
        "10.0  20.0   +10.0  a.py::test_grew",
        "compared 2 tests: 1 grew, 1 same",
        "a.py::test_grew: peak 20.0 MiB, was 10.0 in base.json: grew 10.0 MiB (100 %), over 10%",
    ] == capsys.readouterr().out.splitlines()


def test_compare_prints_json(two_runs: list[str], capsys: Capture) -> None:
    """A program gets bytes, words and lists."""
    assert 1 == main(["compare", *two_runs, "--fail-increase=10%", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert (True, "base.json", [], []) == tuple(
        document[key] for key in ("failed", "base", "new", "gone")
    )
    assert {"grew": 1, "shrank": 0, "same": 1, "unsure": 0, "not compared": 0} == document["counts"]
    assert {
        "subject": "peak",
        "status": "grew",
        "was": 10 * 2**20,
        "now": 20 * 2**20,
        "change": 10 * 2**20,
        "increase": "10%",
        "reason": None,
        "alone": False,
    } == document["tests"][0]["compared"][0]


def test_compare_takes_several_files_and_standard_input(
    two_runs: list[str], documents: Documents, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever one file is taken, a pattern is, and so is a dash."""
    documents.write("base-2.json", documents.test("b.py::test_more"))
    data = Path(two_runs[1]).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert 0 == main(["compare", str(documents.folder / "base*.json"), "-"])
    assert "compared 2 tests: 1 grew, 1 same, 1 gone" in capsys.readouterr().out


def test_nothing_compared_is_no_pass(documents: Documents, capsys: Capture) -> None:
    """Two runs without a common test prove nothing."""
    paths = [documents.write(f"{name}.json", documents.test(name)) for name in "ab"]
    assert 1 == main(["compare", *paths])
    assert "pytest-imu: no test could be compared, so the comparison fails\n" == capsys.readouterr().err


@pytest.mark.parametrize("verb", [["compare"], ["report"], ["report", "--base"]])
def test_a_bad_file_is_refused(two_runs: list[str], verb: list[str], capsys: Capture) -> None:
    """One line, and status 2."""
    for file in two_runs:
        Path(file).write_text("{", encoding="ascii")
    assert 2 == main([*verb, *two_runs])
    told = capsys.readouterr()
    assert ("", 1) == (told.out, told.err.count("\n"))
    assert told.err.startswith("pytest-imu: invalid file '")
    assert "expected what --imu-json writes, but it ends in the middle" in told.err


@pytest.mark.parametrize(
    "arguments",
    [["compare", "x"], ["compare", "a", "b", "--fail-increase=x"], ["report", "a", "--top=-1"], ["x"]],
)
def test_bad_usage_is_told(arguments: list[str], capsys: Capture) -> None:
    """What makes no sense ends with status 2."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert 2 == ended.value.code
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("width", [40, 80, 200])
def test_report_prints_the_section_again(
    documents: Documents, capsys: Capture, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """It is what the run itself printed: the table, what the numbers are, and the broken budgets."""
    monkeypatch.setenv("COLUMNS", str(width))
    name = f"tests/test_{'long_' * 10}name.py::test_large"
    tests = [documents.test(name, 30, budgets=[documents.budget()]), documents.test("b.py::test_b", 10)]
    assert 0 == main(["report", documents.write("imu.json", *tests)])
    out = capsys.readouterr().out
    assert out.startswith("peak  delta  total   time  test")
    assert ("30.0   15.0   15.0  1.00s  " + name in out) == (width == 200)
    told = "".join(out.split())  # narrow terminals fold the lines
    for line in (
        "10.0 5.0 5.0 1.00s b.py::test_b",
        "2 of 2 tests, largest peak first",
        "kernel peaks, to 0.5",
        "noise of an empty window ± 0.1 MiB",
        documents.budget()["reason"],
    ):
        assert "".join(line.split()) in told


def test_report_in_a_narrow_terminal_keeps_every_line(
    documents: Documents, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines that continue in the same words are each told to their end."""
    budget = documents.budget(reason="grows by 1 block a call: 8 of 8 calls after 3 warm-ups")
    tests = [documents.test(f"test_it.py::test_{name}", budgets=[budget]) for name in "ab"]
    path = documents.write("run.json", *tests)
    monkeypatch.setenv("COLUMNS", "40")
    main(["report", path])
    assert 2 == capsys.readouterr().out.count("warm-ups")


def test_report_of_a_killed_run_names_what_ran(documents: Documents, capsys: Capture) -> None:
    """The run log of a run that was killed still makes a section, and tells which test has no end."""
    start = {"event": "start", "attempt": 1, "worker": None}
    path = documents.log(
        "imu.jsonl",
        {**start, "nodeid": "a"},
        {"event": "end", **documents.test("a")},
        {**start, "nodeid": "b\n"},
        '{"event": "end", "nodeid": "b", "att',
    )
    assert 0 == main(["report", path])
    lines = capsys.readouterr().out.splitlines()
    assert "10.0    5.0    5.0  1.00s  a" == lines[1]
    assert r"b\n: its end is missing" == lines[-1]


@pytest.mark.parametrize("form", ["document", "log"])
def test_report_prints_the_lines_behind_a_peak(documents: Documents, capsys: Capture, form: str) -> None:
    """Those of passed tests and of failed ones, whose failures are shown nowhere else; escaped."""
    why = {"metric": "peak", "phase": "call", "reason": None, "profile": None}
    text = "where the peak was reached:\n  kept    peak\n   0.0    10.0  a.py:1  {}"
    tests = [
        documents.test(name, outcome=outcome, why={**why, "text": text.format(line)})
        for name, outcome, line in (("a", "passed", "x = 1"), ("b", "failed", "\x1b[2Jy"))
    ]
    if form == "log":
        path = documents.log("imu.jsonl", *({"event": "end", **test} for test in tests))
    else:
        path = documents.write("imu.json", *tests)
    assert 0 == main(["report", path])
    lines = capsys.readouterr().out.splitlines()
    head = ["where the peak was reached:", "  kept    peak"]
    assert [
        *("a:", *head, "   0.0    10.0  a.py:1  x = 1"),
        *("b:", *head, r"   0.0    10.0  a.py:1  \x1b[2Jy"),
    ] == lines[-8:]


def test_lines_behind_a_peak_of_another_form_are_refused(documents: Documents, capsys: Capture) -> None:
    """As every other part of a document is."""
    assert 2 == main(["report", documents.write("imu.json", documents.test("a", why={"text": 1}))])
    assert "but has no 'metric'" in capsys.readouterr().err


def test_report_with_a_base_has_its_columns(two_runs: list[str], capsys: Capture) -> None:
    """An earlier run can be put beside it."""
    assert 1 == main(["report", two_runs[1], "--base", two_runs[0], "--fail-increase=10%"])
    lines = capsys.readouterr().out.splitlines()
    assert "peak   was  change  delta  total   time  test" == lines[0]
    assert "compared 2 tests: 1 grew, 1 same" in lines
    assert 1 == sum("grew 10.0 MiB" in line for line in lines)
