"""What a measurement is: frozen records, with a plain form that any process can read back."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

from pytest_imu.core.system import System

Source = Literal["kernel", "sampled", "none"]
"""Where a peak comes from: the kernel's high-water mark (exact), samples (a lower bound), or nowhere."""

SOURCES: Mapping[str, Source] = {source: source for source in get_args(Source)}

CountedBy = Literal["kernel", "perf", "callgrind"]
"""Where a count comes from: the kernel's own call, `perf stat`, or valgrind's simulation of caches."""

Phase = Literal["setup", "call", "teardown"]
PHASES: tuple[Phase, ...] = ("setup", "call", "teardown")

Unit = Literal["pss", "rss", "none"]
"""What was added up: proportional set sizes, resident set sizes (an overestimate), or nothing."""

NONE_AT_A_SAMPLE = "no child process lived long enough to be sampled"

LABELS: Mapping[Unit, str] = {
    "pss": "PSS, sampled",
    "rss": "RSS sum, sampled, an overestimate",
    "none": "n/a",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterReading:
    """What one event counted in one window; where it could not, `value` is None with a `reason`."""

    event: str
    """The event as it was asked for, "cache-misses" say."""
    value: float | None
    """The count (or milliseconds, for the clock events), scaled where events had to take turns."""
    per_second: float | None = None
    running_percent: float | None = None
    """How much of the time the event was really on the hardware; under 100, `value` is scaled."""
    reason: str | None = None
    samples: tuple[float, ...] = ()
    user_only: bool = False
    """Whether what the kernel did for the block is left out, as no more is allowed: perf's `:u`."""
    source: CountedBy = "perf"

    @property
    def is_simulated(self) -> bool:
        """Whether it was counted in simulated caches, where time means nothing."""
        return self.source == "callgrind"

    @property
    def name(self) -> str:
        """The event as perf prints it: with `:u` where only user space was counted."""
        return f"{self.event}:u" if self.user_only else self.event

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form, made of numbers, strings, lists and None; the event is its key."""
        plain = asdict(self) | {"samples": list(self.samples)}
        del plain["event"]
        return plain

    @classmethod
    def from_dict(cls, event: str, plain: Mapping[str, Any]) -> CounterReading:
        """Rebuild a reading from its event and its plain form."""
        return cls(event=event, **{**plain, "samples": tuple(plain["samples"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildrenMemory:
    """The memory of all descendants during a window: a lower bound, since it is sampled.

    A number that could not be read is None, and `reason` says why; it is never 0.
    """

    peak_bytes: int | None
    """The highest sum of their memory at one sample; 0 where no sample met any."""
    most: int | None
    """The most descendants alive at one sample."""
    samples: int
    """How many samples succeeded."""
    unit: Unit
    reason: str | None = None

    @property
    def label(self) -> str:
        """What kind of number it is, in words."""
        return LABELS[self.unit]

    def beside(self, *, had_children: bool | None) -> ChildrenMemory:
        """Return it as it stands beside the census: children that no sample met are not 0."""
        if not had_children or self.most != 0 or self.peak_bytes is None:
            return self
        return replace(self, peak_bytes=None, reason=NONE_AT_A_SAMPLE)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form, made of numbers, strings and None."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> ChildrenMemory:
        """Rebuild it from its plain form."""
        return cls(**plain)


class Start(NamedTuple):
    """When a test began, in nanoseconds of both clocks."""

    wall_ns: int
    """Since 1970."""
    clock_ns: int
    """On the clock of all durations, which all processes of a machine share."""

    @classmethod
    def now(cls) -> Start:
        """Return the time, whatever a test has made of the wall clock."""
        clock_ns = System.perf_counter_ns()
        return cls(clock_ns + System.WALL_AHEAD_NS, clock_ns)

    @property
    def text(self) -> str:
        """The wall clock's time as ISO 8601, in UTC, to the microsecond."""
        moment = EPOCH + dt.timedelta(microseconds=self.wall_ns // 1000)
        return moment.isoformat(timespec="microseconds")

    @classmethod
    def from_text(cls, text: str, clock_ns: int) -> Start:
        """Rebuild it, to the microsecond; raises ValueError for a text that is no time with its zone."""
        since = dt.datetime.fromisoformat(text) - EPOCH
        return cls(since // dt.timedelta(microseconds=1) * 1000, clock_ns)


EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one measured block used, in bytes of resident set size (RSS) and nanoseconds.

    A number that could not be read is None, and `reason` says why; it is never 0.
    """

    before_bytes: int | None
    """RSS when the window opened."""
    after_bytes: int | None
    """RSS when the window closed."""
    rss_peak_bytes: int | None
    """Highest RSS inside the window, first and last reading included."""
    duration_ns: int
    """Wall-clock time of the block itself, without the measuring."""
    source: Source
    reason: str | None = None
    """Why a number is missing, or less than exact; None when there is nothing to say."""
    counters: tuple[CounterReading, ...] = ()
    reusable_bytes: int | None = None
    """What the allocators held free as the window opened; None where that is not known. The true
    peak lies between `peak_bytes` and that much more."""
    tracer: str | None = None
    """What traced the block: its own share is in the numbers."""
    had_children: bool | None = None
    """Whether child processes started or ended in the block; None where that is not known."""
    children_memory: ChildrenMemory | None = None
    """The memory of all descendants, where it was asked for."""
    imports: tuple[str, ...] = ()
    """Large packages that the block was the first to import: what they take is in its numbers."""
    started_ns: int | None = None
    """When the block began, on the monotonic clock; None where that was not noted."""

    @property
    def delta_bytes(self) -> int | None:
        """What the block left behind: after - before. Negative when it gave memory back."""
        if self.after_bytes is None or self.before_bytes is None:
            return None
        return self.after_bytes - self.before_bytes

    @property
    def peak_bytes(self) -> int | None:
        """What the block needed on top of what was there: max(0, rss_peak - before)."""
        if self.rss_peak_bytes is None or self.before_bytes is None:
            return None
        return max(0, self.rss_peak_bytes - self.before_bytes)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form, made of numbers, strings, dicts and None; the JSON file's `M`."""
        return {
            "before_bytes": self.before_bytes,
            "after_bytes": self.after_bytes,
            "rss_peak_bytes": self.rss_peak_bytes,
            "delta_bytes": self.delta_bytes,
            "peak_bytes": self.peak_bytes,
            "duration_ns": self.duration_ns,
            "started_ns": self.started_ns,
            "source": self.source,
            "reason": self.reason,
            "reusable_bytes": self.reusable_bytes,
            "tracer": self.tracer,
            "had_children": self.had_children,
            "children_memory": (
                None if self.children_memory is None else self.children_memory.to_dict()
            ),
            "imports": [*self.imports],
            "counters": {reading.event: reading.to_dict() for reading in self.counters},
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Measurement:
        """Rebuild a measurement from its plain form; the derived numbers are derived again."""
        memory = plain["children_memory"]
        return cls(
            before_bytes=plain["before_bytes"],
            after_bytes=plain["after_bytes"],
            rss_peak_bytes=plain["rss_peak_bytes"],
            duration_ns=plain["duration_ns"],
            started_ns=plain["started_ns"],
            # One text for all: without this every report from a worker would bring its own.
            source=SOURCES[plain["source"]],
            reason=plain["reason"],
            reusable_bytes=plain["reusable_bytes"],
            tracer=plain["tracer"],
            had_children=plain["had_children"],
            children_memory=None if memory is None else ChildrenMemory.from_dict(memory),
            imports=tuple(plain["imports"]),
            counters=tuple(
                CounterReading.from_dict(event, reading) for event, reading in plain["counters"].items()
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A named block measured inside a test."""

    name: str
    measurement: Measurement

    def to_dict(self) -> dict[str, Any]:
        """Return the measurement's plain form with the block's name in front."""
        return {"name": self.name, **self.measurement.to_dict()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Block:
        """Rebuild a block from its plain form."""
        return cls(name=plain["name"], measurement=Measurement.from_dict(plain))
