"""Which source counts events in this process, and what it simulates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pytest_imu.core.counters.callgrind.command import (
    USUAL_CACHES,
    option,
    running_under_callgrind,
    valgrind_arguments,
)
from pytest_imu.core.counters.source import CounterSource
from pytest_imu.core.model import Measurement

CACHE_OPTIONS = ("I1", "D1", "LL")
MACHINES_OWN = "this machine's own sizes"


def source_of_counts(events: Sequence[str], *, idle_s: float | None = None) -> CounterSource:
    """Return callgrind where it runs this process, and perf everywhere else.

    *idle_s* is perf's: it ends after so many seconds without a window.
    """
    if running_under_callgrind():
        from pytest_imu.core.counters.callgrind.counts import Callgrind

        return Callgrind(events)
    from pytest_imu.core.counters.perf.stat import PerfStat

    return PerfStat(events, idle_s=idle_s)


def simulated_caches() -> str | None:
    """Return the caches that the callgrind around this process simulates; None where there is none."""
    if not running_under_callgrind():
        return None
    arguments = valgrind_arguments()
    sizes = [(name, option(arguments, name)) for name in CACHE_OPTIONS]
    named = [f"{name}={size}" for name, size in sizes if size is not None]
    return " ".join(named) if len(named) == len(CACHE_OPTIONS) else MACHINES_OWN


def simulated_caches_of(caches: str | None) -> str:
    """Return the caches of a run, also where only its workers simulate them; None is the usual ones."""
    return simulated_caches() or caches or USUAL_CACHES


def source_text(measured: Iterable[Measurement], *, caches: str | None = None) -> str | None:
    """Return what counted, as a document says it; None where nothing did.

    *caches* are those that other processes simulate, where no callgrind runs this one.
    """
    sources = {one.source for m in measured for one in m.counters if one.value is not None}
    if "callgrind" in sources:
        return f"callgrind, simulated caches {simulated_caches() or caches or 'not known'}"
    return "perf" if sources else None
