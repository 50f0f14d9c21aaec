"""The statements of a cell, each measured as a command of its own would be."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ipython_hooks.lines.table import LineTable, Row
from pytest_imu.core.model import Measurement
from pytest_imu.core.units import NANOSECONDS_PER_SECOND, mib_or_none

if TYPE_CHECKING:
    from ipython_hooks.session import Session
    from pytest_imu.core.meter import Meter

MADE_BY_IPYTHON = "get_ipython()."
"""So begins what IPython makes of a magic; the person knows the line that was typed."""


class Statements:
    """Measures the statements that a cell reaches, one after another."""

    def __init__(self, session: Session, nodes: Sequence[ast.stmt]) -> None:
        self._session = session
        self._nodes = nodes
        self._meter: Meter | None = None
        self._reached = 0
        self._measured: list[tuple[int, Measurement]] = []

    def begin(self) -> None:
        """Begin; the first window opens when the first statement is reached."""

    def reach(self, number: int | None, value: object = None) -> object:
        """End the statement that runs, and begin the one with this number; return *value*."""
        meter, self._meter = self._meter, None
        if meter is not None:
            meter.__exit__(None, None, None)
            self._measured.append((self._reached, meter.measurement))
        if number is not None:
            self._reached = number
            self._meter = self._session.meter()
            self._meter.__enter__()
        return value

    def end(self) -> None:
        """End what is still open."""
        self.reach(None)

    def table(self, raw_cell: str, *, raised: bool) -> LineTable:
        """Return what each statement used, and all of them together."""
        texts = _texts(raw_cell, self._session.shell.transform_cell(raw_cell), self._nodes)
        last = len(self._measured) - 1
        rows = [
            _row(one, self._nodes[number].lineno, texts[number], raised=raised and place == last)
            for place, (number, one) in enumerate(self._measured)
        ]
        raised = raised and bool(rows)
        measurements = [one for _, one in self._measured]
        events = [reading.event for one in measurements[:1] for reading in one.counters]
        return LineTable(
            lines=tuple(rows),
            columns={"used": "used_mib", "peak": "peak_mib", "time": "seconds"}
            | dict(zip(events, events, strict=True)),
            decimals=self._session.options.decimals,
            places=tuple(str(row["line"]) for row in rows),
            whole=_whole(measurements) if last > 0 else None,
            remarks=(
                "(used and peak in MiB)",
                *([f"line {rows[-1]['line']} raised: its numbers have the traceback in them"] * raised),
            ),
        )


def _row(one: Measurement, line: int | None, text: str, *, raised: bool) -> Row:
    return {
        "line": line,
        "used_mib": mib_or_none(one.delta_bytes),
        "peak_mib": mib_or_none(one.peak_bytes),
        "total_mib": mib_or_none(one.after_bytes),
        "seconds": one.duration_ns / NANOSECONDS_PER_SECOND,
        "source": one.source,
        "raised": raised,
        **{reading.event: reading.value for reading in one.counters},
        "text": text,
    }


def _whole(measurements: Sequence[Measurement]) -> Row:
    """Return the row for all: what is there at the end, and the highest of all peaks."""
    before_bytes, after_bytes = measurements[0].before_bytes, measurements[-1].after_bytes
    peaks = [one.rss_peak_bytes for one in measurements]
    known = [peak for peak in peaks if peak is not None]
    is_known = before_bytes is not None and after_bytes is not None and len(known) == len(peaks)
    whole = Measurement(
        before_bytes=before_bytes if is_known else None,
        after_bytes=after_bytes if is_known else None,
        rss_peak_bytes=max(known) if is_known else None,
        duration_ns=sum(one.duration_ns for one in measurements),
        source=measurements[-1].source,
    )
    return _row(whole, None, "all of it", raised=False)


def _texts(raw_cell: str, cell: str, nodes: Sequence[ast.stmt]) -> list[str]:
    """Return the first line of each statement, as it was typed."""
    typed, lines = raw_cell.lstrip().splitlines(), cell.splitlines()
    texts = []
    for node in nodes:
        text = (ast.get_source_segment(cell, node) or "").partition("\n")[0]
        if MADE_BY_IPYTHON in text and len(typed) == len(lines):
            text = typed[node.lineno - 1]
        texts.append(text.strip())
    return texts
