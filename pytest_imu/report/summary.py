"""A run in Markdown, for the page of a CI run: what broke first, then what grew, then the largest."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

from pytest_imu.core.units import format_mib, format_seconds, plural, printable
from pytest_imu.history.compare import Comparison
from pytest_imu.history.wording import change_text, counts_line, difference_lines, was_text
from pytest_imu.report.budget_lines import broken_budgets, unchecked_budgets
from pytest_imu.report.kept import kept_lines
from pytest_imu.report.rows import Row
from pytest_imu.report.table import peak_text

LARGEST = 10
MAX_BYTES = 2**20
"""What GitHub takes of each step."""
CUT = "\n*Cut here: GitHub takes 1 MiB.*\n"
FENCES = re.compile("`+")


def markdown(rows: Sequence[Row], comparison: Comparison | None = None, *, whole: bool = True) -> str:
    """Return the summary of a run."""
    return "\n".join(_lines(rows, comparison, whole=whole)) + "\n"


def cut(text: str, room: int) -> str:
    """Return as many whole lines of a text as fit into so many bytes, and say where it was cut."""
    data = text.encode()
    if len(data) <= room:
        return text
    kept = data[: max(0, room - len(CUT.encode()))]
    return kept[: kept.rfind(b"\n") + 1].decode() + CUT if len(CUT.encode()) <= room else ""


def _lines(rows: Sequence[Row], comparison: Comparison | None, *, whole: bool) -> Iterator[str]:
    broken, unchecked = broken_budgets(rows), len(unchecked_budgets(rows))
    measured = sum(row.call is not None for row in rows)
    counts = [f"{plural(measured, 'test')} measured", f"{plural(len(broken), 'budget')} broken"]
    counts += [f"{unchecked} unchecked"] if unchecked else []
    yield "## Memory of the tests"
    yield ""
    yield ", ".join(counts) + "."
    if comparison is not None:
        yield counts_line(comparison, whole=whole).capitalize() + "."
        yield from (code(line) for line in difference_lines(comparison))
    yield from ("", *(f"- {code(row.nodeid)}: {code(str(one.reason))}" for row, one in broken))
    if comparison is not None:
        yield from _grown(comparison)
    yield from _largest(rows)
    yield from (f"\n{code(line)}" for line in kept_lines(rows))


def _grown(comparison: Comparison) -> Iterator[str]:
    grown = comparison.grown
    if not grown:
        return
    yield from ("", "### Grown", "", "| was | change | of | test |", "| --: | --: | --- | --- |")
    for nodeid, change in grown:
        subject = code(change.increase.subject, in_table=True)
        name = code(nodeid, in_table=True)
        yield f"| {was_text(change)} | {change_text(change)} | {subject} | {name} |"


def _largest(rows: Sequence[Row]) -> Iterator[str]:
    calls = ((row, row.call) for row in rows if row.call is not None)
    known = [(row, call) for row, call in calls if call.peak_bytes is not None]
    known.sort(key=lambda pair: -(pair[1].peak_bytes or 0))
    if not known:
        return
    yield from (
        "",
        "### Largest",
        "",
        "| peak MiB | kept MiB | time | test |",
        "| --: | --: | --: | --- |",
    )
    for row, call in itertools.islice(known, LARGEST):
        numbers = f"{peak_text(call)} | {format_mib(call.delta_bytes)}"
        time = format_seconds(call.duration_ns)
        yield f"| {numbers} | {time} | {code(row.nodeid, in_table=True)} |"


def code(text: str, *, in_table: bool = False) -> str:
    """Return a text as code, in which nothing means anything: no HTML, no link, no mention."""
    text = printable(text)
    fence = "`" * (max((len(run) for run in FENCES.findall(text)), default=0) + 1)
    space = " " if "`" in text or not text.strip() else ""
    # A table is split at its bars first, also inside code.
    text = text.replace("|", r"\|") if in_table else text
    return f"{fence}{space}{text}{space}{fence}"
