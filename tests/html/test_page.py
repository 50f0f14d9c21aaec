"""The page as text: what it says and in which order, how large it is, and that it is only text."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from pages import ENVIRONMENT, HOSTILE, compared, many, measurement, page_of, row, verdict
from pytest_imu.core.budgets import Budget, Verdict
from pytest_imu.core.model import Block, ChildrenMemory, CounterReading
from pytest_imu.core.units import MIB

WORDS = re.compile(r"[\w-]+").findall
KNOWN_TAGS = WORDS(
    """
    html meta title link style header h1 p main section details summary h2 ul li a b span div
    h3 i svg path ol table thead tbody tr th td form label input select option output code
    polyline noscript dl dt dd script
    """
)


KNOWN_ATTRIBUTES = WORDS(
    """
    lang charset name content rel href class id aria-label aria-labelledby aria-hidden
    aria-live aria-sort open tabindex role style title viewbox preserveaspectratio d points
    hidden type autocomplete value scope colspan data-band
    """
)
"""None of them runs anything, and only links lead anywhere."""


class Elements(HTMLParser):
    """What a page is made of, as a parser sees it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take in an element."""
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self.links.update(value or "" for name, value in attrs if name == "href")


def text_of(html: str) -> str:
    """Return what a reader sees, roughly: without tags, and on one line."""
    body = html[html.index("<header>") : html.index("<script type=")]
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


def part_of(html: str, place: int = 0) -> str:
    """Return what a test's own part says."""
    start = html.index(f"<tr class=p id=t{place}>")
    return text_of(f"<header>{html[start : html.index(chr(10), start)]}<script type=")


def test_the_run_stands_at_the_top_in_one_sentence() -> None:
    """It counts the tests, the workers, what broke and what was not checked."""
    not_counted = CounterReading(event="cycles", value=None, reason="not supported here")
    rows = [
        row("a.py::one", 30, worker="gw0", verdicts=(verdict("broken", reason="peak 30 is over"),)),
        row(
            "a.py::two",
            10,
            worker="gw1",
            second=1,
            verdicts=(verdict("unchecked", reason="reused memory"),),
        ),
        row("a.py::three", outcome="skipped", call=None, second=3),
        row("a.py::four", call=measurement(source="none", reason="no /proc"), start=None),
        row("a.py::five", 5, call=measurement(5, counters=(not_counted,)), start=None),
    ]
    text = text_of(page_of(rows))
    expected = (
        "4 tests measured in 3.0 s on 2 workers: 1 budget broken, 1 budget not checked, "
        "the largest peak is 30.0 MiB."
    )
    assert expected in text
    assert (
        text.index("1 budget broken a.py::one peak 30 is over")
        < text.index("1 budget not checked: reused memory; --imu-isolate=budgets runs these tests")
        < text.index("1 test not measured: no /proc a.py::four")
        < text.index("1 test not counted: cycles not supported here a.py::five")
        < text.index("Environment")
        < text.index("The run")
        < text.index("The tests")
        < text.index("What the numbers are")
    )


def test_a_run_without_tests_has_a_page() -> None:
    """It says that nothing was measured, and needs no picture."""
    html = page_of([])
    assert "0 tests measured: no budgets." in text_of(html)
    assert "<svg" not in html


def test_a_part_says_all_that_is_known_of_its_test() -> None:
    """Phases, blocks, budgets, counters with their samples, children, reuse, marker and command."""
    counters = (
        CounterReading(
            event="page-faults", value=2560, per_second=512, samples=(10, 0, 5), user_only=True
        ),
        CounterReading(event="cycles", value=None, reason="not supported by this machine"),
    )
    children = ChildrenMemory(peak_bytes=100 * MIB, most=2, samples=9, unit="pss")
    call = measurement(
        30,
        counters=counters,
        reusable_bytes=20 * MIB,
        tracer="coverage",
        imports=("numpy",),
        had_children=True,
        children_memory=children,
    )
    one = row(
        "tests/test_it.py::test_it[a b]",
        call=call,
        setup=measurement(4),
        blocks=(Block(name="make", measurement=measurement(7)),),
        verdicts=(replace(verdict("kept"), decided_by="alone", first_bytes=60 * MIB),),
        worker="gw1",
        isolated=True,
        attempt=2,
    )
    part = part_of(page_of([row(one.nodeid, 5, outcome="rerun"), one]))
    for said in (
        "passed on gw1 in a process of its own; attempt 1: rerun, peak 5.0",
        "MiB before peak kept after time setup 50.0 4.0 0.0 50.0 1.00s call 50.0 30.0 0.0 50.0 1.00s",
        "20.0 MiB were free as it began, which it may have used again: it needs 30.0 to 50.0 MiB; --imu",
        "traced by coverage: the numbers include its memory",
        "the first to import numpy: what that takes is in these numbers",
        "child processes: 100.0 MiB, 2 at once (PSS, sampled)",
        "block make 50.0 7.0",
        "max_peak_mib(5) 10.0 kept decided by a run alone; the first run had 60.0",
        "page-faults:u 2,560 512",
        "raw samples: 10, 0, 5",
        "in user space only; by perf",
        "cycles n/a not supported by this machine",
        "pytest --imu &#39;tests/test_it.py::test_it[a b]&#39;",
    ):
        assert said in part
    assert "@pytest.mark" not in part  # it has a limit
    largest = [row("a.py::test_it[1]", 30), row("a.py::test_it[2]", 10)]
    assert "@pytest.mark.max_peak_mib(38)" in part_of(page_of(largest), 1)
    assert '<polyline points="0,0 50,20 100,10"/>' in page_of([one])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"source": "none", "reason": "no /proc"}, "not measured: no /proc"),
        ({"source": "sampled", "reason": "not Linux"}, "sampled: the peak is a lower bound (not Linux)"),
        ({"reusable_bytes": None}, "how much freed memory it used again is not known"),
        ({"had_children": True}, "had child processes, which are not in these numbers"),
        (
            {
                "children_memory": ChildrenMemory(
                    peak_bytes=None, most=0, samples=0, unit="none", reason="x"
                )
            },
            "child processes n/a: x",
        ),
    ],
)
def test_what_is_not_known_is_said(more: dict[str, Any], said: str) -> None:
    """A number that is missing, or less than exact, has its reason beside it."""
    assert said in part_of(page_of([row(call=measurement(**more))]))


LINE = {
    "file": "/home/me/project/tests/test_it.py",
    "line": 7,
    "text": "d = a * b + c",
    "hits": 1,
    "has_more_hits": False,
    "kept_bytes": 60 * MIB,
    "most_kept_bytes": 60 * MIB,
    "shared_bytes": 0,
    "peak_bytes": 120 * MIB,
    "total_bytes": 200 * MIB,
}
PROFILE: dict[str, Any] = {
    "label": "kernel high-water mark",
    "is_exact": True,
    "start_bytes": 0,
    "peak_bytes": 120 * MIB,
    "kept_bytes": 60 * MIB,
    "chain": [LINE],
    "is_chain_at_peak": True,
    "lines": [LINE],
    "fault": None,
    "held": {
        "reason": None,
        "asked_bytes": 120 * MIB,
        "lines": [{"file": LINE["file"], "line": 7, "held_bytes": 119 * MIB}],
    },
}
WHY = {"metric": "peak", "phase": "call", "reason": None, "text": "", "profile": PROFILE}


def part_with_why(**more: Any) -> str:
    """Return the part of a test of which these lines are known."""
    return part_of(page_of([row(why={**WHY, **more})]))


def test_the_lines_behind_the_peak_are_shown() -> None:
    """With where they stand and how they read: the chain, what kept, and what was held."""
    part = part_with_why()
    line = "tests/test_it.py:7 d = a * b + c"
    assert (
        f"Where the peak was reached, in a second run (120.0 MiB) kept peak line 60.0 120.0 {line}"
        in part
    )
    assert f"What kept the most (60.0 MiB) kept peak line 60.0 120.0 {line}" in part
    assert f"Held at the peak, by memray (120.0 MiB asked for) held line 119.0 {line}" in part


def test_lines_that_are_not_known_have_a_reason() -> None:
    """Whatever the second run could not tell."""
    assert "the lines may not be known: it failed" in part_with_why(reason="it failed", profile=None)
    assert "the second run told nothing" in part_with_why(profile=None)
    doubtful = {
        **PROFILE,
        "fault": "OSError",
        "is_exact": False,
        "label": "sampled",
        "is_chain_at_peak": False,
        "held": {"reason": "no memray", "asked_bytes": 0, "lines": []},
    }
    part = part_with_why(profile=doubtful)
    for said in (
        "some readings failed: OSError",
        "sampled: a lower bound",
        "the peak was not reached in any of these lines",
        "what was held is not known: no memray",
    ):
        assert said in part


def test_an_earlier_run_stands_beside_it() -> None:
    """What grew is at the top, and the table has what it was and by how much it changed."""
    rows = [row("a.py::grew", 20), row("a.py::same", 5), row("a.py::new", 1)]
    html = page_of(rows, comparison=compared(rows, {"a.py::grew": 10, "a.py::same": 5}))
    text = text_of(html)
    assert "1 test grew" in text[: text.index("MiB.")]
    assert "a.py::grew peak 20.0 MiB, was 10.0 in base.json: grew 10.0 MiB (100 %), over 10%+2" in text
    assert "test outcome peak was change kept total time" in text
    assert "a.py:: grew passed 20.0 10.0 +10.0" in text
    assert "peak grew, was 10.0 in base.json (+10.0)" in part_of(html)
    assert "compared 3 tests: 1 grew, 1 same, 1 new" in text


def test_a_limit_is_a_mark_on_the_bar() -> None:
    """Of the peak and of what is kept, in percent of the largest; one off the scale is at its end."""
    kept = Verdict(budget=Budget(metric="delta", limit_mib=2), outcome="broken")
    whole = Verdict(budget=Budget(metric="peak", limit_mib=1, phase="all"), outcome="kept")
    limited = row(call=measurement(10, kept_mib=4), verdicts=(verdict("kept", 50), kept, whole))
    html = page_of([row("a", call=measurement(20, kept_mib=8)), limited, row("c", 0)])
    styles = re.findall(r'<td(?: style="([^"]+)")?>(20.0|8.0|10.0|4.0|0.0)(?=<td)', html)
    shown = [style for style, _ in styles if style]
    assert ["--p:100.0", "--p:100.0", "--p:50.0;--m:100", "--p:50.0;--m:25.0"] == shown[:4]


def data_of(html: str) -> dict[str, Any]:
    """Return the page's JSON."""
    found = re.search(r"<script type=\"application/json\" id=data>(.*?)</script>", html)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_a_thousand_tests_are_under_a_megabyte() -> None:
    """With names of 70 characters, a budget for every fourth, and three workers."""
    html = page_of(many(1000))
    assert len(html) < 1_000_000
    assert 1000 == html.count("<tr class=p ")
    assert 1000 == len(data_of(html)["keys"][0])


def test_the_rest_of_many_tests_is_text() -> None:
    """The first 1,000 stand in the page, the largest; the others where browsers without scripts look."""
    html = page_of(many(1100))
    shown, _, rest = html.partition("<noscript>")
    assert (1000, 100) == (shown.count("<tr class=p "), rest.count("<tr class=p "))
    assert 100 == len(data_of(html)["names"])
    assert all(line.startswith('<tr class="r') for line in rest.splitlines()[1:101])


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_only_text(text: str) -> None:
    """Wherever it comes from: no tag, no attribute and no JSON is made of it, and the page is ASCII."""
    counter = CounterReading(event=text, value=None, reason=text)
    line = {**LINE, "file": text, "text": text}
    why = {
        **WHY,
        "reason": text,
        "text": text,
        "profile": {**PROFILE, "chain": [line], "label": text, "fault": text},
    }
    one = row(
        f"{text}/a.py::{text}[{text}]",
        outcome=text,
        worker=text,
        call=measurement(tracer=text, imports=(text,), reason=text, counters=(counter,)),
        blocks=(Block(name=text, measurement=measurement()),),
        verdicts=(verdict("broken", reason=text),),
        why=why,
    )
    html = page_of([one, row()], environment={**ENVIRONMENT, text: text, "packages": {text: text}})
    assert html.isascii()
    assert {"\n"} >= {sign for sign in html if not sign.isprintable()}
    found = Elements(html)
    assert found.tags <= {*KNOWN_TAGS}
    assert found.attributes <= {*KNOWN_ATTRIBUTES}
    assert all(re.fullmatch(r"#t\d+|data:,", link) for link in found.links)
    assert 2 == html.count("<script") == html.count("</script>")
    assert (1, 1) == (html.count("<style>"), html.count("</style>"))
    assert "1337" not in html
    data_of(html)  # it can be read


def test_a_huge_id_is_cut_in_the_table_and_whole_in_its_part() -> None:
    """A hundred thousand characters do not push the numbers away, nor make a command nobody can type."""
    name = "x" * 100_000
    html = page_of([row(f"a.py::{name}")])
    assert 1 == html.count(name)
    assert "pytest --imu a.py" in part_of(html)


def test_json_in_a_script_cannot_end_it() -> None:
    """Every sign that HTML knows is written as JSON's own escape."""
    rows = [*many(1000), row("</script>&\u2028", 0)]
    html = page_of(rows)
    assert ["</script>&\\u2028"] == data_of(html)["names"]
    island = html[html.index("id=data>") + 8 : html.rindex("</script>\n<script>")]
    assert not set("<>&\u2028") & set(island)


def test_without_jinja_it_says_what_to_install(pytester: pytest.Pytester) -> None:
    """Before the first test runs."""
    pytester.makeconftest("import sys; sys.modules['jinja2'] = None")
    pytester.makepyfile("def test_it(): raise SystemExit('it ran')")
    result = pytester.runpytest_subprocess("-p", "imu", "--imu-html=imu.html")
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines(
        ["ERROR: --imu-html: the page needs Jinja2: pip install 'pytest-imu[[]html]'"]
    )
