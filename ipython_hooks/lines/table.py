"""Lines and what they used, as an object: data, text for terminals, and a table with bars."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_imu.core.units import align_right, cut_middle, format_count, printable

Row = Mapping[str, Any]
LEAST_TEXT_WIDTH = 20
TEXT_WIDTH_IN_HTML = 120
USED_COLOR, PEAK_COLOR = "#4d9078", "#f2c14e"
CELL = "<td style='text-align:right;font-variant-numeric:tabular-nums'>{}</td>"
CODE = "<td style='text-align:left'><code style='white-space:pre'>{}</code></td>"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LineTable:
    """What the lines of one command used; `lines` is what `pandas.DataFrame` takes as it is."""

    lines: tuple[Row, ...]
    columns: Mapping[str, str]
    """The heading of each column of numbers, and the key in the rows that it stands for."""
    decimals: int
    places: tuple[str, ...]
    """Where each line stands."""
    whole: Row | None = None
    """One row more, for all of them together."""
    remarks: tuple[str, ...] = ()
    """What has to be known of the numbers."""

    def __repr__(self) -> str:
        return "\n".join(self.text_lines(width=80))

    def text_lines(self, *, width: int) -> list[str]:
        """Return the table as text, its rows *width* characters at most."""
        rows = self._rows()
        if not rows:
            return list(self.remarks)
        head, *numbers = align_right([[*self.columns], *map(self._cells, rows)])
        places = align_right([[place] for place in self._all_places()])
        text_width = max(LEAST_TEXT_WIDTH, width - len(head) - len(places[0]) - 4)
        lines = [
            f"{left}  {place}  {cut_middle(printable(row['text']), text_width)}".rstrip()
            for left, place, row in zip(numbers, places, rows, strict=True)
        ]
        return [head, *lines, *self.remarks]

    def _repr_html_(self) -> str:
        heads = "".join(
            f"<th style='text-align:right'>{html.escape(name)}</th>" for name in self.columns
        )
        rows = "".join(
            f"<tr>{''.join(CELL.format(html.escape(cell)) for cell in self._cells(row))}{bar}"
            f"{CELL.format(html.escape(printable(place)))}{CODE.format(_shown(row['text']))}</tr>"
            for row, place, bar in zip(self._rows(), self._all_places(), self._bars(), strict=True)
        )
        remarks = "".join(f"<div>{html.escape(remark)}</div>" for remark in self.remarks)
        return f"<table><tr>{heads}<th></th><th></th><th></th></tr>{rows}</table>{remarks}"

    def _rows(self) -> list[Row]:
        return [*self.lines, *([] if self.whole is None else [self.whole])]

    def _all_places(self) -> list[str]:
        return [*self.places, *([] if self.whole is None else [""])]

    def _cells(self, row: Row) -> list[str]:
        return [self._cell(row, key) if key in row else "" for key in self.columns.values()]

    def _cell(self, row: Row, key: str) -> str:
        value = row[key]
        if value is None:
            return "n/a"
        if key == "seconds":
            return f"{value:.2f}s"
        if not key.endswith("_mib"):
            return format_count(value) + ("+" if key == "hits" and row["has_more_hits"] else "")
        # Adding 0.0 turns the "-0.0" of a tiny negative number into "0.0".
        text = f"{round(value, self.decimals) + 0.0:.{self.decimals}f}"
        if key == "used_mib" and row.get("is_shared"):
            return f"*{text}"
        return f"~{text}" if key == "peak_mib" and row.get("source") == "sampled" else text

    def _bars(self) -> Sequence[str]:
        """Return a cell for each row: how much of the highest peak it needed, and kept of that."""
        rows = [(row["used_mib"] or 0, row["peak_mib"] or 0) for row in self.lines]
        highest = max((peak for _, peak in rows), default=0) or 1
        bars = [_bar(min(max(0, used), peak) / highest, peak / highest) for used, peak in rows]
        return [*bars, *([] if self.whole is None else ["<td></td>"])]


def _bar(used: float, peak: float) -> str:
    parts = f"{USED_COLOR} 0 {used:.0%},{PEAK_COLOR} 0 {peak:.0%},transparent 0"
    return f"<td style='min-width:8em;background:linear-gradient(to right,{parts})'></td>"


def _shown(text: str) -> str:
    return html.escape(cut_middle(printable(text), TEXT_WIDTH_IN_HTML))
