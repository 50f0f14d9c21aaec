"""The run as a picture: RSS over the time, a band for each worker, the peak of each test at its time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pytest_imu.core.model import Measurement, Phase
from pytest_imu.core.units import MIB, NANOSECONDS_PER_SECOND, format_mib
from pytest_imu.html.run import PageRun
from pytest_imu.report.kept import SAME_CLOCK_NS, kept_bytes
from pytest_imu.report.rows import Row

WIDTH, HEIGHT = 2000, 200
"""Of a band, in units of its picture, which is drawn as wide as the page has room."""
THINNEST = 2
"""Narrower no bar is drawn, and what is nearer together is one bar."""
MARKED = 5
"""How many tests stand out, of those that kept 1 MiB or more."""
TICKS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A line of the scale, and where it stands in percent."""

    percent: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A test that kept much, at its end."""

    number: int
    band: int
    place: int
    left_percent: float
    bottom_percent: float
    name: str
    kept: str


@dataclass(slots=True, kw_only=True)
class Band:
    """What one process ran, one test after the other."""

    worker: str | None
    end_ns: int = 0
    shapes: dict[str, str] = field(default_factory=dict)
    """The paths of an SVG picture, by what they show: "setup", "call" and "rss"."""
    spans: list[_Span] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The whole picture."""

    bands: Sequence[Band]
    sizes: Sequence[Tick]
    times: Sequence[Tick]
    marks: Sequence[Mark]
    spans: Sequence[tuple[int, int, int]]
    """Of each test, by its place: its band, its beginning and its end; -1 for one that is not there."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    row: Row
    start_ns: int
    end_ns: int
    steps: Sequence[tuple[Phase, Measurement, int, int]]
    """Each phase with its beginning and its end."""


def picture_of(run: PageRun) -> Picture | None:
    """Return the picture of a run; None where no test's start is known, as in files of old."""
    spans = sorted(_spans(run.attempts), key=lambda span: span.start_ns)
    sizes = [size for span in spans for one in span.row.phases.values() for size in _sizes(one)]
    if not sizes:
        return None
    bands = _bands(spans)
    begin_ns, end_ns = spans[0].start_ns, max(span.end_ns for span in spans)
    across = _Scale(low=begin_ns, high=max(end_ns, begin_ns + 1), units=WIDTH)
    step_bytes = _nice_step(max(1, (max(sizes) - min(sizes)) / MIB / TICKS)) * MIB
    low_bytes = math.floor(min(sizes) / step_bytes) * step_bytes
    high_bytes = max(math.ceil(max(sizes) / step_bytes) * step_bytes, low_bytes + step_bytes)
    upward = _Scale(low=low_bytes, high=high_bytes, units=HEIGHT)
    for band in bands:
        band.shapes.update(_shapes(band, across, upward))
    return Picture(
        bands=bands,
        sizes=[
            Tick(percent=upward.percent(size), text=f"{size / MIB:.0f}")
            for size in _steps(low_bytes, high_bytes, step_bytes)
        ],
        times=_times(begin_ns, end_ns),
        marks=list(_marks(run, bands, across, upward)),
        spans=_places(run, bands, across),
        seconds=(end_ns - begin_ns) / NANOSECONDS_PER_SECOND,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    low: float
    high: float
    units: int

    def at(self, value: float) -> float:
        return round((value - self.low) / (self.high - self.low) * self.units, 1)

    def percent(self, value: float) -> float:
        return round((value - self.low) / (self.high - self.low) * 100, 2)


def _spans(rows: Sequence[Row]) -> Iterator[_Span]:
    """Give when each test ran, on one clock for all: the exact one, where that is of one machine."""
    known = [(row, row.start) for row in rows if row.start is not None]
    apart_ns = [start.wall_ns - start.clock_ns for _, start in known]
    one_clock = not apart_ns or max(apart_ns) - min(apart_ns) < SAME_CLOCK_NS
    for row, start in known:
        start_ns = start.clock_ns if one_clock else start.wall_ns
        steps, end_ns = [], start_ns
        for phase, one in row.phases.items():
            began_ns = end_ns
            if one.started_ns is not None:
                began_ns = max(end_ns, start_ns + one.started_ns - start.clock_ns)
            end_ns = began_ns + one.duration_ns
            steps.append((phase, one, began_ns, end_ns))
        yield _Span(row=row, start_ns=start_ns, end_ns=end_ns, steps=steps)


def _bands(spans: Sequence[_Span]) -> list[Band]:
    """Put each test into the band of its worker; two of one worker at one time are two processes."""
    bands: list[Band] = []
    for span in spans:
        own = (band for band in bands if band.worker == span.row.worker and band.end_ns <= span.start_ns)
        band = next(own, None)
        if band is None:
            band = Band(worker=span.row.worker)
            bands.append(band)
        band.spans.append(span)
        band.end_ns = span.end_ns
    return sorted(bands, key=lambda band: (len(band.worker or ""), band.worker or ""))


def _sizes(one: Measurement) -> list[int]:
    return [size for size in (one.before_bytes, one.rss_peak_bytes, one.after_bytes) if size is not None]


def _shapes(band: Band, across: _Scale, upward: _Scale) -> dict[str, str]:
    """Return the band's paths: what is too near to be told apart is drawn once, at its largest."""
    bars: dict[str, list[list[float]]] = {"setup": [], "call": []}
    line: list[tuple[float, float]] = []
    for span in band.spans:
        for phase, one, began_ns, end_ns in span.steps:
            left, right = across.at(began_ns), across.at(end_ns)
            if one.before_bytes is None or one.after_bytes is None:
                continue
            foot = upward.at(one.before_bytes)
            for point in ((left, foot), (right, upward.at(one.after_bytes))):
                if line and int(line[-1][0]) == int(point[0]) and len(line) > 1:
                    line[-1] = point
                else:
                    line.append(point)
            top = upward.at(max(one.rss_peak_bytes or 0, one.before_bytes))
            _add_bar(bars["setup" if phase == "setup" else "call"], [left, right, foot, top])
    shapes = {kind: "".join(map(_bar, some)) for kind, some in bars.items()}
    points = "L".join(f"{round(x)} {round(HEIGHT - y)}" for x, y in line)
    shapes["rss"] = f"M{points}" if line else ""
    return shapes


def _add_bar(bars: list[list[float]], bar: list[float]) -> None:
    if bars and bar[1] - bars[-1][0] < THINNEST:
        last = bars[-1]
        last[:] = last[0], bar[1], min(last[2], bar[2]), max(last[3], bar[3])
    elif bar[3] > bar[2]:
        bars.append(bar)


def _bar(bar: list[float]) -> str:
    left, right, foot, top = bar
    x, y = round(left), round(HEIGHT - foot)
    return f"M{x} {y}V{round(HEIGHT - top)}H{max(round(right), x + THINNEST)}V{y}Z"


def _marks(run: PageRun, bands: Sequence[Band], across: _Scale, upward: _Scale) -> Iterator[Mark]:
    """Give the tests that kept most."""
    kept_by_row = dict(zip(map(id, run.attempts), kept_bytes(run.attempts), strict=True))
    shown = [
        (kept_by_row[id(span.row)], number, span)
        for number, band in enumerate(bands)
        for span in band.spans
        if id(span.row) in run.places
    ]
    shown.sort(key=lambda one: -one[0])
    for number, (kept, band, span) in enumerate(shown[:MARKED], start=1):
        ends = [one.after_bytes for one in span.row.phases.values() if one.after_bytes is not None]
        if kept >= MIB and ends:
            yield Mark(
                number=number,
                band=band,
                place=run.places[id(span.row)],
                left_percent=across.percent(span.end_ns),
                bottom_percent=upward.percent(ends[-1]),
                name=span.row.nodeid,
                kept=format_mib(kept),
            )


def _places(run: PageRun, bands: Sequence[Band], across: _Scale) -> list[tuple[int, int, int]]:
    spans = [(-1, 0, 0)] * len(run.rows)
    for number, band in enumerate(bands):
        for span in band.spans:
            if (place := run.places.get(id(span.row))) is not None:
                spans[place] = number, round(across.at(span.start_ns)), round(across.at(span.end_ns))
    return spans


def _times(begin_ns: int, end_ns: int) -> list[Tick]:
    seconds = max(end_ns - begin_ns, 1) / NANOSECONDS_PER_SECOND
    step = _nice_step(seconds / TICKS)
    decimals = max(0, -math.floor(math.log10(step)))
    return [
        Tick(percent=round(at / seconds * 100, 2), text=f"{at:,.{decimals}f} s")
        for at in _steps(0, seconds, step)
    ]


def _steps(low: float, high: float, step: float) -> list[float]:
    return [low + number * step for number in range(int((high - low) / step + 1e-9) + 1)]


def _nice_step(least: float) -> float:
    """Return the next of 1, 2, 5, 10, 20, ... that is no less."""
    if least <= 0:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
