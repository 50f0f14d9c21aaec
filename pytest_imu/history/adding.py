"""`approve --add`: a marker above each large test that has none."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from pytest_imu.core.units import MIB, format_limit
from pytest_imu.history.headroom import suggested_mib
from pytest_imu.history.marks import Marks, Test
from pytest_imu.history.source import Edit, SourceFile
from pytest_imu.history.wishes import Measured, Plan, Wishes

NO_DEFINITION = "its definition is not in this file, or there are several"


def wants_marker(test: Measured, wishes: Wishes, floor_bytes: int) -> bool:
    """Tell whether a test is large and has no limit of its own."""
    limited = any(
        budget["name"] == "max_peak_mib" and budget["phase"] == "call" and budget["origin"] is None
        for budget in test.budgets
    )
    least_bytes = max(wishes.min_mib * MIB, floor_bytes)
    return not limited and test.peak_bytes is not None and test.peak_bytes > least_bytes


def added(
    marks: Marks, tests: Sequence[Measured], *, wishes: Wishes, floor_bytes: int, planned: Plan
) -> list[Edit]:
    """Return the markers that are added, each above its function, and the import they need."""
    wanted: dict[int, tuple[Test, list[Measured]]] = {}
    for test in tests:
        if not wishes.covers(test.nodeid) or not wants_marker(test, wishes, floor_bytes):
            continue
        found = marks.find(test.names)
        if found is None:
            planned.leave(test.nodeid, NO_DEFINITION)
        elif test.doubt is not None:
            planned.leave(test.nodeid, test.doubt)
        elif test.may_be_reuse:
            planned.leave(test.nodeid, "it may have used memory again; --imu-isolate tells")
        elif not _is_lifted(marks, found, test):
            wanted.setdefault(found.function.lineno, (found, []))[1].append(test)

    def limit_of(measured: Sequence[Measured]) -> str:
        most_bytes = max(one.peak_bytes or 0 for one in measured)
        headroom_percent = wishes.headroom_percent
        return format_limit(suggested_mib(most_bytes, floor_bytes, headroom_percent=headroom_percent))

    edits = [_marker(marks, test, limit_of(measured)) for test, measured in wanted.values()]
    if edits and marks.pytest_mark() is None:
        edits.append(_import(marks.source))
    return edits


def _marker(marks: Marks, test: Test, limit: str) -> Edit:
    """Return a marker above a function, below its other decorators."""
    start = marks.source.offset(test.function.lineno)
    indent = marks.source.text[start : start + test.function.col_offset].decode()
    mark = marks.pytest_mark() or "pytest.mark"
    new = f"{indent}@{mark}.max_peak_mib({limit}){marks.source.newline}"
    return Edit(start=start, end=start, new=new)


def _is_lifted(marks: Marks, found: Test, test: Measured) -> bool:
    """Tell whether a marker says that there shall be no limit."""
    places = marks.places(found, test.parameters)
    return any(
        one.lifts and one.subject[0] == "max_peak_mib"
        for place in places
        if not isinstance(place, str)
        for one in place
    )


def _import(source: SourceFile) -> Edit:
    """Return `import pytest`, in front of the first statement that may stand behind it."""
    for statement in source.tree.body:
        is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        is_future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
        if not (is_text or is_future):
            decorators = getattr(statement, "decorator_list", [])
            line = min([statement.lineno, *(one.lineno for one in decorators)])
            gap = "" if isinstance(statement, ast.Import | ast.ImportFrom) else source.newline * 2
            start = source.offset(line)
            return Edit(start=start, end=start, new=f"import pytest{source.newline}{gap}")
    raise ValueError("no statement")
