"""Reading documents again: the three layouts, and one clear line for all that is none."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from pytest_imu.history import load
from pytest_imu.history.load import UnusableFileError, named_files, read

if TYPE_CHECKING:
    from tests.history.conftest import Documents


def plain(test: dict[str, Any], *_: object) -> dict[str, Any]:
    """Keep the test as it is."""
    return test


def refusal(path: str) -> str:
    """Return the line that refuses a file."""
    with pytest.raises(UnusableFileError) as refused:
        read(path, plain)
    return str(refused.value).replace(repr(path), "FILE")


def test_a_document_is_read_whole(documents: Documents) -> None:
    """Each test comes as it was written, with the environment; a mark at the file's front is no harm."""
    tests = [documents.test("a.py::test_a"), documents.test("a.py::test_\u00fc", 3)]
    path = documents.write("run.json", *tests)
    run = read(path, plain)
    assert (tests, "3.11.7") == (run.tests, run.environment["python"])
    marked = documents.text("marked.json", b"\xef\xbb\xbf" + Path(path).read_bytes())
    assert tests == read(marked, plain).tests
    assert [] == read(documents.write("empty.json"), plain).tests


def test_a_document_that_was_laid_out_anew_is_read(documents: Documents) -> None:
    """So is what another program has laid out for people, with Windows's line ends."""
    test = documents.test("a.py::test_a")
    whole = json.loads(Path(documents.write("run.json", test)).read_text(encoding="ascii"))
    text = json.dumps(whole, indent=2).replace("\n", "\r\n")
    assert [test] == read(documents.text("pretty.json", text), plain).tests


def test_standard_input_is_read(documents: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dash stands for it."""
    data = Path(documents.write("run.json", documents.test("a"))).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="ascii"))
    assert [documents.test("a")] == read("-", plain).tests


def test_a_run_log_is_read(documents: Documents) -> None:
    """Its ended tests are read, and what was running when the run was killed is one that was killed."""
    names = ("a", "b", "c")
    starts = [
        {"event": "start", "nodeid": name, "attempt": 1, "worker": None, "pid": 1} for name in names
    ]
    ends = [{"event": "end", **documents.test(name)} for name in ("a", "b")]
    path = documents.log(
        "run.jsonl", starts[0], ends[0], starts[1], '{"event": "sta', ends[1], starts[2]
    )
    tests = read(path, plain).tests
    assert [("a", "passed"), ("b", "passed"), ("c", "killed")] == [
        (test["nodeid"], test["outcome"]) for test in tests
    ]
    assert tests[2]["phases"]["call"] is None


WHY = {"metric": "peak", "phase": "call", "reason": None, "text": ""}
PROFILE = {
    "label": "sampled",
    "is_exact": False,
    "start_bytes": 0,
    "peak_bytes": 0,
    "kept_bytes": 0,
    "chain": [],
    "is_chain_at_peak": False,
    "lines": [],
    "fault": None,
    "held": None,
}


def broken(documents: Documents, **changes: object) -> str:
    """Return the path of a document whose second test is changed."""
    return documents.write("run.json", documents.test("a"), {**documents.test("b"), **changes})


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"nodeid": "a"}, "but has two tests with the id 'a'"),
        ({"nodeid": 3}, "but has 3 for 'nodeid'"),
        ({"attempt": 0}, "but has 0 for 'attempt'"),
        ({"attempt": True}, "but has True for 'attempt'"),
        ({"started_at": "today", "started_ns": 1}, "but has 'today' for 'started_at'"),
        (
            {"started_at": "2026-11-26T06:00:00", "started_ns": 1},
            "but has '2026-11-26T06:00:00' for 'started_at'",
        ),
        ({"started_at": "2026-11-26T06:00:00+00:00"}, "but has None for 'started_ns'"),
        ({"phases": {}}, "but has no 'setup'"),
        (
            {"phases": {"setup": None, "call": 1, "teardown": None}},
            "but has 1 for 'call'",
        ),
        ({"budgets": [{"name": 3}]}, "but has 3 for 'name'"),
        ({"blocks": [3]}, "but has 3 in the place of an object"),
        ({"why": {"metric": "peak"}}, "but has no 'phase'"),
        ({"why": {**WHY, "profile": {}}}, "but has no 'label'"),
        ({"why": {**WHY, "profile": {**PROFILE, "chain": [3]}}}, "but has 3 in the place of an object"),
        ({"why": {**WHY, "profile": {**PROFILE, "held": {}}}}, "but has no 'reason'"),
    ],
)
def test_a_test_of_another_form_is_refused(
    documents: Documents, changes: dict[str, object], why: str
) -> None:
    """The line says what is wrong, and on which line of the file."""
    expected = f"invalid file FILE: expected what --imu-json writes, {why}; line 3"
    assert expected == refusal(broken(documents, **changes))


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (
            '"duration_ns": 1000000000',
            '"duration_ns": NaN',
            "but has NaN in the place of a number; line 3",
        ),
        ('"duration_ns": 1000000000', '"duration_ns": 1e999', "but has inf for 'duration_ns'; line 3"),
        ('"before_bytes": 0', f'"before_bytes": {"9" * 5000}', "but it is no JSON (Exceeds the limit"),
        ('"source": "kernel"', '"source": "sensors"', "but has 'sensors' for 'source'; line 3"),
        ('"before_bytes": 0, ', "", "but has no 'before_bytes'; line 3"),
        ("]}\n", "", "but it ends in the middle; line 4"),
        ("]}\n", "]}\nmore", "but there is more behind its end; line 4"),
        ('"source": "kernel"', '"source": "ker', "but it"),
        ('"budgets": []', f'"budgets": {"[" * 100_000}', "but it is nested too deeply; line 3"),
    ],
)
def test_a_damaged_document_is_refused(documents: Documents, old: str, new: str, why: str) -> None:
    """Half a document is none, and what is no number is none."""
    text = Path(broken(documents)).read_text(encoding="ascii")
    assert old in text
    head, _, tail = text.rpartition(old)
    line = refusal(documents.text("damaged.json", head + new + tail))
    assert line.startswith(f"invalid file FILE: expected what --imu-json writes, {why}")
    assert "\n" not in line


def test_a_document_from_before_starts_were_noted_is_read(documents: Documents) -> None:
    """What later versions have added to the schema is None where a file does not have it."""
    text = Path(documents.write("run.json", documents.test("a"))).read_text(encoding="ascii")
    text = re.sub(r'"started_\w+": null, ', "", text)
    assert "started" not in text

    [test] = read(documents.text("old.json", text), plain).tests

    call = test["phases"]["call"]
    assert (None, None, None) == (test["started_at"], test["started_ns"], call["started_ns"])


def test_every_cut_of_a_document_is_refused(documents: Documents) -> None:
    """Wherever the disk was full: no half of a run passes for a run."""
    text = Path(documents.write("run.json", documents.test("a"), documents.test("b"))).read_text()
    for end in range(0, len(text.rstrip()), 7):
        refusal(documents.text("cut.json", text[:end]))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "but it is empty"),
        ("hello", "but it is no JSON (Expecting value)"),
        ("[1, 2]", "but it is another program's"),
        ('{"benchmarks": [], "machine_info": {}}', "but it is another program's"),
        ('{"schema": 1, "environment": {}}', "but it has no list of tests"),
        ('{"schema": 1, "environment": [], "tests": []}', "but has [] for 'environment'"),
        (b"\xff\xfe\x00", "but it is no UTF-8 text"),
        (b"\x00" * 100, "but it is no JSON (Expecting value)"),
    ],
)
def test_what_is_no_document_is_refused(documents: Documents, text: str | bytes, why: str) -> None:
    """Another tool's JSON, text, and bytes."""
    expected = f"invalid file FILE: expected what --imu-json writes, {why}"
    assert expected == refusal(documents.text("x.json", text))


@pytest.mark.parametrize("layout", [None, 1])
def test_a_newer_schema_is_refused(documents: Documents, layout: int | None) -> None:
    """What a later version writes is not guessed at."""
    whole = json.loads(Path(documents.write("run.json")).read_text(encoding="ascii"))
    text = json.dumps({**whole, "schema": 2}, indent=layout).replace('"tests": []', '"tests": [\n]')
    expected = "invalid file FILE: expected what --imu-json writes in schema 1, not in 2"
    assert expected == refusal(documents.text("x.json", text))


def test_files_that_are_not_there(documents: Documents, tmp_path: Path) -> None:
    """So are a file that is missing, a folder, and a pattern that nothing matches."""
    assert "invalid file FILE: expected a file that exists" == refusal(str(tmp_path / "x.json"))
    assert "(Is a directory)" in refusal(str(tmp_path))
    assert "invalid file" in refusal("x" * 100_000)
    with pytest.raises(UnusableFileError, match="a pattern that matches a file"):
        named_files([str(tmp_path / "*.json")])
    first, second = documents.write("a-1.json"), documents.write("a-2.json")
    assert [first, second, "-"] == named_files([str(tmp_path / "a-*.json"), "-"])
    with pytest.raises(UnusableFileError, match="each file once"):
        named_files([first, str(tmp_path / "a-*.json")])


def test_a_huge_file_is_refused_before_it_is_read(
    documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has no line ends is read to a limit; a document with a test a line may have any size."""
    monkeypatch.setattr(load, "MAX_HEAD", 100)
    monkeypatch.setattr(load, "MAX_WHOLE", 1000)
    monkeypatch.setattr(load, "MAX_LINE", 10_000)
    assert "with a test a line" in refusal(documents.text("huge.json", "[" + "1," * 1000))
    many = [documents.test(f"test_{number}") for number in range(50)]
    text = Path(documents.write("run.json", *many)).read_text()
    assert len(text) > 20_000
    monkeypatch.setattr(load, "MAX_HEAD", 1000)
    assert many == read(documents.text("long.json", text), plain).tests
    longer = re.sub('"reason": null', f'"reason": "{"x" * 10_000}"', text, count=1)
    assert "but has a line of more than" in refusal(documents.text("longer.json", longer))


AT_ONCE = """
import json, os, sys
from pytest_imu.history import load
from pytest_imu.history.entries import entry_of
from pytest_imu.history.merge import attempt_of

*names, broken = sys.argv[1:]
os.cpu_count = lambda: 2
found = []
for load.LARGE_BYTES in (2**24, 1):
    found.append([load.read_all(names, make) for make in (entry_of, attempt_of)])
    try:
        load.read_all([*names, broken], entry_of)
    except load.UnusableFileError as error:
        found[-1].append(str(error))
print(json.dumps([found[0] == found[1], [run.name for run in found[1][0]], found[1][2]]))
"""


def test_large_files_are_read_at_once(documents: Documents, run_python: Callable[..., Any]) -> None:
    """Each in a process of its own; what comes, in which order, and what is refused is the same."""
    names = [
        documents.write("first.json", documents.test("a"), documents.test("b", 3)),
        documents.write("second.json", documents.test("b", 4)),
    ]
    broken = documents.text("broken.json", "nothing like it")
    with pytest.raises(UnusableFileError) as refused:
        read(broken, plain)
    assert [True, names, str(refused.value)] == run_python(AT_ONCE, *names, broken)


def test_where_no_process_can_be_had_files_are_read_one_by_one(
    documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where there are no semaphores, or a process is killed for its memory."""
    names = [documents.write(name, documents.test("a")) for name in ("first.json", "second.json")]
    monkeypatch.setattr(load, "LARGE_BYTES", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    for error in (OSError, BrokenExecutor):
        refused = mock.Mock(side_effect=error)
        with mock.patch("concurrent.futures.ProcessPoolExecutor", refused):
            assert names == [run.name for run in load.read_all(names, plain)]
        assert refused.called
