"""Makes of what was read a profile that can be kept."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_imu.core.units import MIB
from pytest_imu.why.profile import CountProfile, LineCost, LineCount, LineProfile, text_of
from pytest_imu.why.readings import Line, Readings


def profile_of(readings: Readings) -> LineProfile:
    """Return what was read."""
    sizes = readings.whole
    start_bytes = sizes.before_bytes
    outside_bytes = sizes.rss_peak_bytes - readings.own_bytes
    is_chain_at_peak = bool(readings.chain) and outside_bytes - readings.highest_bytes < MIB
    highest_bytes = readings.highest_bytes if is_chain_at_peak else outside_bytes
    names = {id(lines): file for file, lines in readings.files.items()}
    return LineProfile(
        label=readings.source.label,
        is_exact=readings.source.resolution_bytes is not None and sizes.source == "kernel",
        start_bytes=start_bytes,
        peak_bytes=max(0, highest_bytes - start_bytes),
        kept_bytes=sizes.after_bytes - readings.own_bytes - start_bytes,
        chain=tuple(
            _cost(names[id(lines)], line, peak_bytes) for lines, line, peak_bytes in readings.chain
        ),
        is_chain_at_peak=is_chain_at_peak,
        fault=_fault(readings),
        lines=tuple(_cost(file, line, line.peak_bytes) for file, line in _lines(readings)),
    )


def counts_of(readings: Readings, event: str) -> CountProfile:
    """Return what was read where the source counts an event: what are bytes elsewhere are counts."""
    sizes, shown = readings.whole, getattr(readings.source, "shown", int)
    return CountProfile(
        event=event,
        label=readings.source.label,
        count=shown(sizes.after_bytes - readings.own_bytes - sizes.before_bytes),
        fault=_fault(readings),
        lines=tuple(
            LineCount(
                file=file,
                line=line.number,
                hits=line.hits,
                has_more_hits=line.is_off,
                count=shown(line.kept_bytes),
                most=shown(line.most_kept_bytes or 0),
                shared=shown(line.shared_bytes),
                text=text_of(file, line.number),
            )
            for file, line in _lines(readings)
        ),
    )


def _lines(readings: Readings) -> Iterator[tuple[str, Line]]:
    """Return all lines that were run, by file and number."""
    for file, lines in sorted(readings.files.items()):
        for _, line in sorted(lines.items()):
            yield file, line


def _fault(readings: Readings) -> str | None:
    return None if readings.fault is None else f"{type(readings.fault).__name__}: {readings.fault}"


def _cost(file: str, line: Line, peak_bytes: int) -> LineCost:
    return LineCost(
        file=file,
        line=line.number,
        hits=line.hits,
        has_more_hits=line.is_off,
        kept_bytes=line.kept_bytes,
        most_kept_bytes=line.most_kept_bytes or 0,
        shared_bytes=line.shared_bytes,
        peak_bytes=peak_bytes,
        total_bytes=line.total_bytes,
        text=text_of(file, line.number),
    )
