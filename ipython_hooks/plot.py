"""A picture of the session: the total over time, and the peaks of its commands."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipython_hooks.records import CommandRecord, command_text, largest
from pytest_imu.core.outfile import replace_all
from pytest_imu.core.units import MIB, NANOSECONDS_PER_SECOND, format_signed_mib, mib, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 10
LABEL_WIDTH = 36
INK = "#16181c"
"""The colour of text and axes; in a notebook it becomes that of the page's own text, light or dark."""
TOTAL, PEAK = "#3f7fd6", "#d9722b"
"""Both can be read on white and on black."""
UNITS = (("seconds", 1, 120), ("minutes", 60, 120 * 60), ("hours", 3600, float("inf")))


class Picture:
    """A matplotlib figure that takes the colours of the page it is shown on."""

    def __init__(self, figure: Any, commands: int) -> None:  # Any: matplotlib is not imported for it
        self.figure = figure
        self._commands = commands

    def __repr__(self) -> str:
        return f"<picture of {plural(self._commands, 'command')}; %imu plot FILE writes it>"

    def _repr_html_(self) -> str:
        from matplotlib import rc_context

        text = io.StringIO()
        with rc_context({"svg.fonttype": "none"}):  # text stays text
            self.figure.savefig(text, format="svg", transparent=True)
        svg = text.getvalue()
        svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
        return f'<div style="color: var(--jp-content-font-color1, inherit)">{svg}</div>'


def plot(records: Sequence[CommandRecord], path: Path | None = None) -> Picture:
    """Return a picture of the session, and write it to *path* if there is one.

    Raises ImportError where matplotlib is not installed, OSError where the file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    measured = [record for record in records if record.measurement.after_bytes is not None]
    with rc_context({"font.size": 9, "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK}):
        figure = Figure(figsize=(11, 4), layout="constrained", facecolor="white")
        axes, key = figure.subplots(1, 2, width_ratios=(3, 1))
        marks = _draw(axes, measured)
        _name_the_largest(axes, key, measured, marks)
        if path is not None:
            picture = io.BytesIO()
            figure.savefig(picture, format=path.suffix[1:] or None)
            if path.is_file():
                replace_all({path: picture.getvalue()})
            else:
                path.write_bytes(picture.getvalue())
    return Picture(figure, len(measured))


def _draw(axes: Axes, records: Sequence[CommandRecord]) -> list[tuple[float, float]]:
    """Draw the line and the marks; return where the marks are, a command each."""
    spans = [_span(record, records[0]) for record in records]
    unit, seconds, _ = next(one for one in UNITS if not spans or spans[-1][1] < one[2])
    times = [time / seconds for span in spans for time in span]
    sizes = [(one.measurement.before_bytes, one.measurement.after_bytes) for one in records]
    totals = [mib(size_bytes or 0) for pair in sizes for size_bytes in pair]
    peaks = [mib(record.measurement.rss_peak_bytes or 0) for record in records]
    axes.fill_between(times, totals, color=TOTAL, alpha=0.15, linewidth=0)
    axes.plot(times, totals, color=TOTAL, linewidth=1.5, label="total")
    axes.scatter(times[1::2], peaks, color=PEAK, s=10, zorder=3, label="peak")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"{unit} since the first command")
    axes.set_ylabel("MiB of resident memory")
    axes.set_facecolor("none")
    axes.tick_params(colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    return [*zip(times[1::2], peaks, strict=True)]


def _span(record: CommandRecord, first: CommandRecord) -> tuple[float, float]:
    """Return when a command began and ended, in seconds since the first one began."""
    begin_ns = record.began_ns - first.began_ns
    end_ns = begin_ns + record.measurement.duration_ns
    return begin_ns / NANOSECONDS_PER_SECOND, end_ns / NANOSECONDS_PER_SECOND


def _name_the_largest(
    axes: Axes, key: Axes, records: Sequence[CommandRecord], marks: Sequence[tuple[float, float]]
) -> None:
    """Give the largest peaks a number each, on a row above them, and say beside it what they are."""
    ten = largest(records, by="peak_bytes", count=NAMED)
    named = [record for record in ten if (record.measurement.peak_bytes or 0) >= MIB]
    key.axis("off")
    if not named:
        return
    low, high = axes.get_xlim()
    row = axes.get_ylim()[1] * 1.1
    axes.set_ylim(top=row * 1.05)
    for rank, record in enumerate(named, 1):
        key.text(0, 1 - (rank - 1) / NAMED, _text_of(rank, record), va="top", parse_math=False)
    places = {id(record): mark for record, mark in zip(records, marks, strict=True)}
    in_time = sorted(enumerate(named, 1), key=lambda one: places[id(one[1])][0])
    wanted = [places[id(record)][0] for _, record in in_time]
    for (rank, record), left in zip(in_time, _apart(wanted, low, high), strict=True):
        axes.annotate(
            str(rank),
            places[id(record)],
            (left, row),
            ha="center",
            arrowprops={"arrowstyle": "-", "color": PEAK, "linewidth": 0.5},
        )


def _apart(places: Sequence[float], low: float, high: float) -> list[float]:
    """Return places in their order, moved so that each has a part of the axis to itself."""
    least = (high - low) / (2 * NAMED)
    apart: list[float] = []
    for place in places:
        apart.append(max(place, apart[-1] + least) if apart else place)
    limit = high
    for number in reversed(range(len(apart))):
        apart[number] = min(apart[number], limit)
        limit = apart[number] - least
    return apart


def _text_of(rank: int, record: CommandRecord) -> str:
    """Return a line of the key: what a number stands for."""
    where = "" if record.number is None else f"In [{record.number}]  "
    peak = format_signed_mib(record.measurement.peak_bytes)
    return f"{rank}  {where}peak {peak}\n    {command_text(record.command, LABEL_WIDTH)[1:-1]}"
