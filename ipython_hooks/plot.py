"""A picture of the session: total, peak and used, command by command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ipython_hooks.records import CommandRecord, command_text
from pytest_imu.core.units import mib

LABEL_WIDTH = 28


def plot(records: Sequence[CommandRecord], path: Path | None = None) -> Any:
    """Return a matplotlib figure, and write it to *path* if there is one.

    Raises ImportError where matplotlib is not installed, OSError where the file cannot be written.
    """
    from matplotlib.figure import Figure

    measured = [record for record in records if record.measurement.after_bytes is not None]
    figure = Figure(figsize=(10, max(2.5, 0.35 * len(measured) + 1.5)), layout="constrained")
    axes = figure.subplots()
    places = range(len(measured))
    peaks = [mib(record.measurement.rss_peak_bytes or 0) for record in measured]
    totals = [mib(record.measurement.after_bytes or 0) for record in measured]
    used = [mib(record.measurement.delta_bytes or 0) for record in measured]
    axes.barh(places, peaks, color="#f2c14e", label="peak")
    axes.barh(places, totals, color="#4d9078", label="total after")
    axes.barh(places, used, color="#f78154", height=0.3, label="used")
    labels = [command_text(record.command, LABEL_WIDTH) for record in measured]
    axes.set_yticks(list(places), labels, parse_math=False)  # a dollar in a command is a dollar
    axes.invert_yaxis()
    axes.set_xlabel("MiB of resident memory")
    axes.legend(loc="best")
    if path is not None:
        figure.savefig(path)
    return figure
