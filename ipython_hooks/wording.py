"""Records -> lines of text; returns strings."""

from __future__ import annotations

import html
from collections.abc import Sequence

from ipython_hooks.options import Options
from ipython_hooks.records import (
    LEAST_WIDTH,
    CommandRecord,
    ancestors_line,
    command_text,
    short_line,
)
from pytest_imu.core.model import CounterReading
from pytest_imu.core.units import (
    align_right,
    format_count,
    format_mib,
    format_seconds,
)

BARS = "▁▂▃▄▅▆▇█"
SPARKLINE_WIDTH = 20
QUIET = (
    "font-family: var(--jp-code-font-family, monospace); font-size: 85%; "
    "color: var(--jp-content-font-color2, inherit)"
)
"""JupyterLab's own grey, which it has for each theme; elsewhere the colour of the text around it."""
UNDER_THE_TABLE = "(MiB; peak: on top of what was there)"
NOTHING_MEASURED = "no command was measured yet"


def report_lines(
    record: CommandRecord, options: Options, *, style: str, columns: int | None = None
) -> list[str]:
    """Return what is said after a command: what it used, and a line for each event counted."""
    if style == "short":
        line = short_line(record, decimals=options.decimals)
    else:
        width = options.command_width
        line = ancestors_line(record, decimals=options.decimals, command_width=width, columns=columns)
    return [line, *counter_lines(record, options)]


def last_lines(record: CommandRecord, options: Options) -> list[str]:
    """Return what is said of a command that stands no longer above: the short line, and which it was."""
    line = short_line(record, decimals=options.decimals)
    return [
        f"{command_text(record.command, options.command_width)}  {line}",
        *counter_lines(record, options),
    ]


def counter_lines(record: CommandRecord, options: Options) -> list[str]:
    """Return a line for each event that has a value."""
    lines = (counter_line(one, raw=options.raw_samples) for one in record.measurement.counters)
    return [*filter(None, lines)]


def counter_line(reading: CounterReading, *, raw: bool) -> str | None:
    """Return the line for an event; None where it has no value, which is said elsewhere, once."""
    if reading.value is None:
        return None
    if reading.is_simulated:  # a rate of what runs fifty times slower says nothing
        return f"{value_for(reading)} {format_count(reading.value)} in all, simulated"
    unit = " ms" if reading.event.endswith("-clock") else ""  # perf's clocks count milliseconds
    rate = f"averages to {reading.per_second or 0:,.0f}{unit}/second"
    if raw:
        return f"{value_for(reading)} {rate}, raw samples: {list(map(float, reading.samples))}"
    return (
        f"{value_for(reading)} {rate}, {format_count(reading.value)}{unit} in all, "
        f"samples: {sparkline(reading.samples)}"
    )


def value_for(reading: CounterReading) -> str:
    """Return how the line of an event begins; the kernel's own counts are perf's, by another way."""
    return f"{'callgrind' if reading.is_simulated else 'perf'} value for {reading.name}"


def sparkline(samples: Sequence[float]) -> str:
    """Return samples as bars, at most twenty of them; each stands for the mean of its share."""
    if not samples:
        return "none"
    share = max(1, -(-len(samples) // SPARKLINE_WIDTH))
    parts = [samples[start : start + share] for start in range(0, len(samples), share)]
    means = [sum(part) / len(part) for part in parts]
    highest = max(means)
    if highest <= 0:
        return BARS[0] * len(means)
    return "".join(BARS[round(mean / highest * (len(BARS) - 1))] for mean in means)


def history_table(
    records: Sequence[CommandRecord], options: Options, *, columns: int | None = None
) -> str:
    """Return a table of commands: number, used, peak, time and the command, cut to the row's end."""
    if not records:
        return NOTHING_MEASURED
    cells = [("number", "used", "peak", "time")] + [
        (
            "" if record.number is None else str(record.number),
            format_mib(record.measurement.delta_bytes, decimals=options.decimals),
            format_mib(record.measurement.peak_bytes, decimals=options.decimals),
            format_seconds(record.measurement.duration_ns),
        )
        for record in records
    ]
    left = align_right(cells)
    width = options.command_width
    if columns is not None:
        width = max(LEAST_WIDTH, min(width, columns - len(left[0]) - len("  ''")))
    commands = ["command"] + [command_text(record.command, width) for record in records]
    rows = (f"{numbers}  {command}" for numbers, command in zip(left, commands, strict=True))
    return "\n".join([*rows, UNDER_THE_TABLE])


def quiet_html(lines: Sequence[str]) -> str:
    """Return the lines as small HTML, everything in them escaped, in the front end's quieter colour."""
    text = "<br>".join(html.escape(line) for line in lines)
    return f'<div style="{QUIET}">{text}</div>'
