"""Merging shards: what one file of several says, and what of them is named or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imu.__main__ import main
from pytest_imu.history.entries import read_side

if TYPE_CHECKING:
    from tests.history.conftest import Documents


def merged(documents: Documents, *paths: str) -> list[dict[str, Any]]:
    """Return the tests of the file that several become."""
    output = documents.folder / "imu.json"
    assert 0 == main(["merge", *paths, "-o", str(output)])
    tests: list[dict[str, Any]] = json.loads(output.read_text(encoding="ascii"))["tests"]
    return tests


def test_shards_become_one_run(documents: Documents, capsys: pytest.CaptureFixture[str]) -> None:
    """Tests come in the order of the files, and the file says how long noise was at worst."""
    tests = [documents.test(f"test_{n}") for n in range(3)]
    first = documents.write("1.json", tests[0], noise_floor_bytes=100, counter_source="perf")
    second = documents.write("2.json", tests[1], tests[2], noise_floor_bytes=300)
    assert tests == merged(documents, first, second)
    assert f"{documents.folder / 'imu.json'}: 3 tests of 2 files\n" == capsys.readouterr().out
    environment = read_side(str(documents.folder / "imu.json")).environment
    assert (300, "perf") == (environment["noise_floor_bytes"], environment["counter_source"])


def test_a_test_of_several_files_keeps_its_attempts(documents: Documents) -> None:
    """Of what each machine ended with the largest counts, and one that failed before all."""
    test = documents.test
    paths = [
        documents.write("1.json", test("a", 30, outcome="rerun"), test("a", 10, attempt=2), test("b")),
        documents.write("2.json", test("a", 20, worker="gw0"), test("b", 5, outcome="failed")),
        documents.write("3.json", test("a", 15)),
    ]
    found = merged(documents, *paths)
    assert [("a", n) for n in (1, 2, 3, 4)] + [("b", 1), ("b", 2)] == [
        (one["nodeid"], one["attempt"]) for one in found
    ]
    peaks = [one["phases"]["call"]["peak_bytes"] >> 20 for one in found]
    assert [30, 10, 15, 20, 10, 5] == peaks
    entries = read_side(str(documents.folder / "imu.json")).entries
    assert ("passed", "failed") == (entries["a"].outcome, entries["b"].outcome)
    numbers = entries["a"].numbers
    assert numbers is not None
    assert 20 * 2**20 == numbers.peak_bytes


def test_files_that_shards_do_not_agree_on_have_no_digest(documents: Documents) -> None:
    """So that nothing is approved from numbers of another text."""
    paths = [
        documents.write(f"{n}.json", documents.test(str(n)), sources={"a.py": "1", "b.py": str(n)})
        for n in (1, 2)
    ]
    merged(documents, *paths)
    environment = read_side(str(documents.folder / "imu.json")).environment
    assert {"a.py": "1"} == environment["sources"]


def test_run_logs_are_merged_too(documents: Documents) -> None:
    """What a killed shard left is a part of the run, with the test that was killed."""
    log = documents.log(
        "2.jsonl",
        {"event": "start", "nodeid": "b", "attempt": 1, "worker": None, "pid": 1, "rss_bytes": 1},
    )
    found = merged(documents, documents.write("1.json", documents.test("a")), log)
    assert [("a", "passed"), ("b", "killed")] == [(one["nodeid"], one["outcome"]) for one in found]
    assert found[0].keys() == found[1].keys()


def test_what_shards_differ_in_is_named(
    documents: Documents, capsys: pytest.CaptureFixture[str]
) -> None:
    """What their numbers depend on, and in which files."""
    paths = [
        documents.write(f"{n}.json", documents.test(str(n)), python="3.1\x1b" if n == 3 else "3.11")
        for n in range(4)
    ]
    merged(documents, *paths)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"python differs: 3.11 in {paths[0]}, {paths[1]} and 1 more; 3.1\\x1b in ")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--expect=3"], "found 2 files, expected 3"),
        (["x.json"], "invalid file 'x.json': expected a file that exists"),
        (["bad.json"], "invalid file 'bad.json': expected what --imu-json writes, but it is no JSON *"),
        (["newer.json"], "invalid file 'newer.json': expected what --imu-json writes in schema 1, *"),
        (["1.json"], "invalid file '1.json': expected each file once"),
        (["-o", "1.json"], "invalid file '1.json': expected a file that is not read as well"),
        (["-o", "."], "'.': it is a folder"),
    ],
)
def test_what_cannot_be_merged_is_refused(
    documents: Documents,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    line: str,
) -> None:
    """One line, status 2, and nothing is written."""
    monkeypatch.chdir(documents.folder)
    for n in (1, 2):
        documents.write(f"{n}.json", documents.test(str(n)))
    documents.text("bad.json", "bad")
    documents.text("newer.json", Path("1.json").read_text().replace('"schema": 1', '"schema": 7'))
    before = {path.name: path.read_bytes() for path in documents.folder.iterdir()}
    assert 2 == main(["merge", "-o", "imu.json", "1.json", "2.json", *arguments])
    said = capsys.readouterr()
    assert "" == said.out
    pytest.LineMatcher(said.err.splitlines()).fnmatch_lines([f"pytest-imu: {line}"])
    assert 1 == said.err.count("\n")
    assert before == {path.name: path.read_bytes() for path in documents.folder.iterdir()}
