"""Approving: the limits that a run changes, in sources as people write them, and what is left alone."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imu.__main__ import main
from pytest_imu.history.approve import plan
from pytest_imu.history.source import digest
from pytest_imu.history.wishes import ChangedError, Wishes, measured_of

if TYPE_CHECKING:
    from tests.history.conftest import Documents

FILE = "tests/test_it.py"


def approved(data: bytes, *tests: dict[str, Any], **wishes: Any) -> tuple[bytes, list[str]]:
    """Return the source as a run of these tests would change it, and what was left alone."""
    environment = {"sources": {FILE: digest(data)}}
    planned = plan(map(measured_of, tests), environment, Wishes(**wishes), lambda _: data)
    for file, edits in planned.files.values():
        data = file.edited(edits)
    return data, [line.removeprefix(f"left alone: {FILE}::") for line in planned.left_alone]


def check(marked: str | bytes, *tests: dict[str, Any], **wishes: Any) -> list[str]:
    """Check that what stands as <old|new> in a source, and nothing else, is changed."""
    if isinstance(marked, str):
        marked = textwrap.dedent(marked).encode()
    before, expected = (re.sub(rb"<(.*?)\|(.*?)>", rb"\%d" % n, marked) for n in (1, 2))
    after, left_alone = approved(before, *tests, **wishes)
    assert expected == after
    return left_alone


@pytest.fixture
def broken(documents: Documents) -> Any:
    """Return a function that makes a test that needed 10 MiB and broke its budget of 5."""

    def made(test: str = "test_a", peak_mib: float = 10, **budget: Any) -> dict[str, Any]:
        budgets = [documents.budget(**{"actual": peak_mib, **budget})]
        more: dict[str, Any] = {"outcome": "failed", "failed_by_budget": True, "budgets": budgets}
        return documents.test(f"{FILE}::{test}", peak_mib, **more)

    return made


@pytest.fixture
def kept(documents: Documents) -> Any:
    """Return a function that makes a test that kept its budget."""

    def made(name: str, peak_mib: float, limit: float, **budget: Any) -> dict[str, Any]:
        own = documents.budget(limit=limit, actual=peak_mib, verdict="kept", reason=None, **budget)
        return documents.test(f"{FILE}::{name}", peak_mib, budgets=[own])

    return made


SOURCES = {
    "a decorator": "import pytest\n@pytest.mark.max_peak_mib(<5|13>)  # 5\ndef test_a(): ...\n",
    "an alias": "import pytest as pt\n@pt.mark.max_peak_mib(<5|13>)\ndef test_a(): ...\n",
    "mark": "from pytest import mark\n@mark.max_peak_mib( <5.0|13> )\ndef test_a(): ...\n",
    "mark by another name": "from pytest import mark as m\n@m.max_peak_mib(<5|13>)\ndef test_a(): ...\n",
    "an assigned mark": "import pytest\nm = pytest.mark\n@m.max_peak_mib(<5|13>)\ndef test_a(): ...\n",
    "an assigned marker": (
        "import pytest\nsmall = pytest.mark.max_peak_mib(<5|13>)\n@small\ndef test_a(): ...\n"
    ),
    "an assigned name": "import pytest\np = pytest.mark.max_peak_mib\n@p(<5|13>)\ndef test_a(): ...\n",
    "async": "import pytest\n@pytest.mark.max_peak_mib(<5|13>)\nasync def test_a(): ...\n",
    "among others": (
        "import pytest\n@pytest.mark.slow(5)\n@pytest.mark.max_delta_mib(5)\n"
        "@pytest.mark.max_peak_mib(<5|13>)\n@pytest.mark.max_peak_mib(5, phase='setup')\n"
        "def test_a(): ...\n"
    ),
    "several lines": (
        "import pytest\n@pytest.mark.max_peak_mib(\n    <5|13>,  # not more\n    phase='call',\n)\n"
        "def test_a(): ...\n"
    ),
    "non-ASCII": (
        "import pytest\n"
        "pytestmark = [pytest.mark.x('\u00fc \U0001f600'), pytest.mark.max_peak_mib(<5|13>)]\n"
        "def test_a(): ...\n"
    ),
    "several on a line": (
        "import pytest\npytestmark = [pytest.mark.max_delta_mib(5), pytest.mark.max_peak_mib(<5|13>), "
        "pytest.mark.max_peak_mib(5, phase='all')]\ndef test_a(): ...\n"
    ),
    "pytestmark": "import pytest\npytestmark = pytest.mark.max_peak_mib(<5|13>)\ndef test_a(): ...\n",
    "more pytestmark": (
        "import pytest\npytestmark = []\npytestmark += (pytest.mark.max_peak_mib(<5|13>),)\n"
        "def test_a(): ...\n"
    ),
    "the closest": (
        "import pytest\npytestmark = pytest.mark.max_peak_mib(5)\n@pytest.mark.max_peak_mib(<5|13>)\n"
        "def test_a(): ...\n"
    ),
    "behind an if": (
        "import pytest\nif True:\n    try:\n        @pytest.mark.max_peak_mib(<5|13>)\n"
        "        def test_a(): ...\n    finally:\n        pass\n"
    ),
    "tabs and form feed": (
        "import pytest\n\f\nif 1:\n\t@pytest.mark.max_peak_mib(<5|13>)\n\tdef test_a(): ...\n"
    ),
    "no last newline": "import pytest\n@pytest.mark.max_peak_mib(<5|13>)\ndef test_a(): ...",
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_only_the_number_changes(broken: Any, source: str, newline: str) -> None:
    """However the marker is written, its number is raised and every other byte stays."""
    assert [] == check(source.replace("\n", newline).encode(), broken())


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1"])
def test_a_file_keeps_its_encoding(broken: Any, encoding: str) -> None:
    """Neither the mark in front nor another encoding is lost."""
    cookie = f"# coding: {encoding}\n" if encoding == "latin-1" else ""
    source = "import pytest\npytestmark = [pytest.mark.x('\u00e9'), pytest.mark.max_peak_mib(<5|13>)]\n"
    assert [] == check((cookie + source + "def test_a(): ...\n").encode(encoding), broken())


CLASSES = """
    import unittest, pytest

    class Base:
        @pytest.mark.max_peak_mib(<5|18>)
        def test_inherited(self): ...

    @pytest.mark.max_peak_mib(<5|25>)
    class TestOuter(Base):
        def test_a(self): ...

        class TestInner:
            pytestmark = [pytest.mark.max_peak_mib(<5|38>)]
            def test_b(self): ...

    class TestUnit(unittest.TestCase):
        @pytest.mark.max_peak_mib(<5|50>)
        def test_c(self): ...
"""


def test_classes(broken: Any) -> None:
    """Markers of classes, of inner ones, of bases and of unittest are found."""
    tests = [
        broken("TestOuter::test_inherited", 14),
        broken("TestOuter::test_a", 20),
        broken("TestOuter::TestInner::test_b", 30),
        broken("TestUnit::test_c", 40),
    ]
    assert [] == check(CLASSES, *tests)


def test_parameters(broken: Any, kept: Any) -> None:
    """A parameter set's own limit is told by its id; the others have that of the function."""
    source = """
        import pytest

        @pytest.mark.max_peak_mib(<5|25>)
        @pytest.mark.parametrize("a", [
            pytest.param(1, marks=pytest.mark.max_peak_mib(<5|13>)),
            pytest.param("x", marks=[pytest.mark.slow, pytest.mark.max_peak_mib(<5|38>)], id="large"),
            3, 4,
        ])
        def test_a(a): ...
    """
    tests = [broken("test_a[1]", 10), broken("test_a[large]", 30), broken("test_a[3]", 20)]
    assert [] == check(source, *tests, kept("test_a[4]", 3, 5))
    unknown = source.replace('id="large"', "id=name").replace("<5|25>", "5").replace("<5|38>", "5")
    assert [
        "test_a[1]: which pytest.param() it is cannot be told",
    ] == check(unknown.replace("<5|13>", "5"), broken("test_a[1]", 10))


def test_one_limit_of_many_tests_is_raised_to_the_largest(broken: Any, kept: Any) -> None:
    """A module's limit holds for all, so what none of them broke decides too."""
    source = """
        import pytest
        pytestmark = pytest.mark.max_peak_mib(<5|25>)
        def test_a(): ...
        def test_b(): ...
        def test_c(): ...
    """
    assert [] == check(source, broken("test_a", 10), broken("test_b", 20), kept("test_c", 4, 5))
    assert [] == check(source, broken("test_a", 10), broken("test_b", 20), only="test_a")


def test_deltas_phases_and_events(broken: Any) -> None:
    """Each kind of limit is raised where it stands; counts keep their underscores."""
    source = """
        import pytest
        @pytest.mark.max_delta_mib(<5|13>, phase="all")
        @pytest.mark.max_peak_mib(<5|13>, phase="setup")
        @pytest.mark.max_cache_misses(<100_000|1_300_000>)
        @pytest.mark.max_events("instructions", <7|130>, warmup=7)
        def test_a(): ...
    """
    tests = [
        broken(name="max_delta_mib", phase="all"),
        broken(phase="setup"),
        broken(name="max_cache_misses", event="cache-misses", limit=100_000, actual=1_000_000),
        broken(name="max_events", event="instructions", limit=7, actual=99.5),
    ]
    one = {**tests[0], "budgets": [budget for test in tests for budget in test["budgets"]]}
    assert [] == check(source, one)


LEFT_ALONE = {
    "max_peak_mib(LIMIT) is not a number": "import pytest\n@pytest.mark.max_peak_mib(LIMIT)",
    "max_peak_mib(2 + 3) is not a number": "import pytest\n@pytest.mark.max_peak_mib(2 + 3)",
    "max_peak_mib is 6 in the file, and was 5 in the run": "import pytest\n@pytest.mark.max_peak_mib(6)",
    "its max_peak_mib is not in this file": "import pytest\n@pytest.mark.max_delta_mib(5)",
    "its max_peak_mib is several times in one place": (
        "import pytest\n@pytest.mark.max_peak_mib(5)\n@pytest.mark.max_peak_mib(5)"
    ),
    "what a max_peak_mib is about is not written out": (
        "import pytest\n@pytest.mark.max_peak_mib(5, phase=PHASE)"
    ),
    "its definition is not in this file, or there are several": (
        "import pytest\ndef test_a(): ...\n@pytest.mark.max_peak_mib(5)"
    ),
}


@pytest.mark.parametrize("why", LEFT_ALONE)
def test_what_cannot_be_changed_is_named(broken: Any, why: str) -> None:
    """It names the test and says why."""
    assert [f"test_a: {why}"] == check(f"{LEFT_ALONE[why]}\ndef test_a(): ...\n", broken())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"failed_by_budget": False}, "the test itself failed"),
        ({"failed_by_budget": False, "outcome": "error"}, "the test was error"),
        ({"source": "sampled"}, "its number is sampled, a lower bound"),
        ({"origin": "--imu-max-peak-mib"}, "its limit is that of --imu-max-peak-mib"),
    ],
)
def test_numbers_that_are_not_taken(broken: Any, changes: dict[str, Any], why: str) -> None:
    """What the test needs is not known, or no marker limits it."""
    test = broken()
    if "source" in changes:
        test["phases"]["call"].update(changes)
    elif "origin" in changes:
        test["budgets"][0].update(changes)
    else:
        test.update(changes)
    source = "import pytest\n@pytest.mark.max_peak_mib(5)\ndef test_a(): ...\n"
    assert [f"test_a: {why}"] == check(source, test)


def test_tighten_lowers_what_is_far_too_wide(kept: Any, documents: Documents) -> None:
    """A limit over twice what would be suggested is lowered, where every number below it is sure."""
    source = "import pytest\n@pytest.mark.max_peak_mib(<100|13>)\ndef test_a(): ...\n"
    test = kept("test_a", 10, 100)
    assert [] == check(source, test, tighten=True)
    wide_enough = source.replace("<100|13>", "26")
    assert [] == check(wide_enough, kept("test_a", 10, 26), tighten=True)
    unchanged = source.replace("<100|13>", "100")
    assert [] == check(unchanged, test)
    assert [] == check(unchanged, test, tighten=True, only="test_b")
    reused = documents.test(f"{FILE}::test_a", reusable_mib=5, budgets=test["budgets"])
    assert [] == check(unchanged, reused, tighten=True)
    skipped = documents.test(f"{FILE}::test_a[1]", outcome="skipped")
    skipped["budgets"] = [documents.budget(limit=100, verdict="unchecked", actual=None)]
    assert [] == check(unchanged, kept("test_a[2]", 10, 100), skipped, tighten=True)


def test_add_puts_markers_where_there_are_none(documents: Documents, kept: Any) -> None:
    """Large tests get a limit below their other decorators; parametrized ones that of the largest."""
    source = '''
        """A module."""
        from __future__ import annotations
        <|import pytest
        >import os

        class TestA:
            @staticmethod
            <|@pytest.mark.max_peak_mib(38)
            >def test_a(): ...

        <|@pytest.mark.max_peak_mib(13)
        >def test_b(x): ...

        def test_small(): ...
        def test_limited(): ...
    '''
    # A pattern that is one line long cannot hold these.
    text = textwrap.dedent(source)
    before = re.sub(r"<\|[^>]*>", "", text).encode()
    expected = re.sub(r"<\|([^>]*)>", r"\1", text).encode()
    tests = [
        documents.test(f"{FILE}::{name}", peak_mib)
        for name, peak_mib in (
            ("TestA::test_a", 30),
            ("test_b[1]", 8),
            ("test_b[2]", 10),
            ("test_small", 4.9),
        )
    ]
    after, left_alone = approved(before, *tests, kept("test_limited", 50, 60), add=True)
    assert [] == left_alone
    assert expected.decode() == after.decode()
    assert before == approved(before, *tests)[0]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def test_a(): ...\n", "import pytest\n\n\n@pytest.mark.max_peak_mib(13)\ndef test_a(): ...\n"),
        (
            "# me\r\nimport os\r\ndef test_a(): ...",
            "# me\r\nimport pytest\r\nimport os\r\n@pytest.mark.max_peak_mib(13)\r\ndef test_a(): ...",
        ),
        (
            "from pytest import mark\n@mark.slow\ndef test_a(): ...\n",
            "from pytest import mark\n@mark.slow\n@mark.max_peak_mib(13)\ndef test_a(): ...\n",
        ),
        (
            "import pytest as pt\ndef test_a(): ...\n",
            "import pytest as pt\n@pt.mark.max_peak_mib(13)\ndef test_a(): ...\n",
        ),
        (
            "import pytest\npytestmark = pytest.mark.max_peak_mib(None)\ndef test_a(): ...\n",
            "import pytest\npytestmark = pytest.mark.max_peak_mib(None)\ndef test_a(): ...\n",
        ),
    ],
)
def test_add_uses_the_names_of_the_file(documents: Documents, source: str, expected: str) -> None:
    """`pytest` is imported where it is missing; a test that shall have no limit gets none."""
    after, left_alone = approved(source.encode(), documents.test(f"{FILE}::test_a"), add=True)
    assert (expected.encode(), []) == (after, left_alone)


def test_add_takes_no_number_that_may_be_reuse(documents: Documents) -> None:
    """Such a limit could break in the next run."""
    source = "import pytest\ndef test_a(): ...\n"
    test = documents.test(f"{FILE}::test_a", reusable_mib=5)
    assert ["test_a: it may have used memory again; --imu-isolate tells"] == check(
        source, test, add=True
    )


def test_a_file_that_is_no_python_is_left_alone(broken: Any, documents: Documents) -> None:
    """So are one that is gone and tests of another kind."""
    for data in (b"def", b"\xff\xfe", b"# coding: nonsense\n"):
        _, [line] = approved(data, broken())
        assert line.startswith(f"left alone: {FILE}: it cannot be read (")
    text = documents.test("docs/x.txt::x.txt", budgets=[documents.budget()], failed_by_budget=True)
    assert (b"x", []) == approved(b"x", text)


def test_a_file_that_changed_is_refused(broken: Any) -> None:
    """Its numbers are those of another text; other line ends make no other text."""
    data = b"import pytest\n@pytest.mark.max_peak_mib(5)\ndef test_a(): ...\n"
    for sources in ({}, {FILE: "0"}, {FILE: digest(data + b"#")}):
        with pytest.raises(ChangedError, match="has changed since the run; run its tests again"):
            plan([measured_of(broken())], {"sources": sources}, Wishes(), lambda _: data)
    assert digest(data) == digest(data.replace(b"\n", b"\r\n"))


# --- the verb -----------------------------------------------------------------------------------

SUITE = """
import pytest


@pytest.mark.max_peak_mib(2)
def test_a():
    block = bytearray(30 << 20)
    block[::4096] = b"x" * (30 << 8)
"""


@pytest.mark.needs_kernel_peaks
def test_the_suite_passes_after_it(
    pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run prints a diff and changes nothing; --write does; then there is nothing to change."""
    path = pytester.makepyfile(test_it=SUITE)
    path.chmod(0o640)
    before = path.read_bytes()
    run = ("-p", "imu", "--imu-json=imu.json")
    pytester.runpytest_subprocess(*run).assert_outcomes(failed=1)
    capsys.readouterr()
    assert 0 == main(["approve", "imu.json"])
    told = capsys.readouterr()
    assert ["--- a/test_it.py", "+++ b/test_it.py", "-@pytest.mark.max_peak_mib(2)"] == [
        line for line in told.out.splitlines() if re.match(r"---|\+\+\+|-", line)
    ]
    assert "1 file to change; --write changes them\n" == told.err
    assert before == path.read_bytes()
    assert 0 == main(["approve", "imu.json", "--write", "--headroom=50%"])
    assert ("", "1 file changed\n") == capsys.readouterr()
    after = path.read_bytes()
    assert b"@pytest.mark.max_peak_mib(46)" in after or b"@pytest.mark.max_peak_mib(45)" in after
    assert 0o640 == path.stat().st_mode & 0o777
    assert 2 == main(["approve", "imu.json", "--write"])
    changed = "pytest-imu: test_it.py has changed since the run; run its tests again\n"
    assert ("", changed) == capsys.readouterr()
    pytester.runpytest_subprocess(*run).assert_outcomes(passed=1)
    capsys.readouterr()
    assert 0 == main(["approve", "imu.json", "--write", "--tighten", "--add"])
    assert ("", "0 files changed\n") == capsys.readouterr()
    assert after == path.read_bytes()
    assert [] == list(Path().glob(".imu-*"))
