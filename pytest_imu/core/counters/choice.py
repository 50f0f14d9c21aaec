"""Which source counts events in this process, and what it simulates."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from pytest_imu.core.counters.callgrind.command import (
    USUAL_CACHES,
    option,
    running_under_callgrind,
    valgrind_arguments,
)
from pytest_imu.core.counters.source import CounterChoice, CounterSource
from pytest_imu.core.counters.together import Together
from pytest_imu.core.model import Measurement

CACHE_OPTIONS = ("I1", "D1", "LL")
MACHINES_OWN = "this machine's own sizes"


def source_of_counts(
    events: Sequence[str],
    *,
    choice: CounterChoice = "auto",
    samples: bool = False,
    idle_s: float | None = None,
) -> CounterSource:
    """Return callgrind where it runs this process, else the kernel, and perf for what that cannot name.

    *samples* is the kernel's: it reads the counts every 0.1 s, too, which takes a thread. *idle_s* is
    perf's: it ends after so many seconds without a window.
    """
    if choice == "callgrind" or running_under_callgrind():
        from pytest_imu.core.counters.callgrind.counts import Callgrind

        return Callgrind(events)
    by_kernel = tuple(events) if choice == "kernel" else ()
    if choice == "auto":
        by_kernel = tuple(event for event in events if kernel_can_name(event))
    by_perf = tuple(event for event in events if event not in by_kernel)
    parts: list[CounterSource] = []
    if by_perf or sys.platform != "linux":
        from pytest_imu.core.counters.perf.stat import PerfStat

        parts.append(PerfStat(by_perf or by_kernel, idle_s=idle_s))
    if by_kernel and sys.platform == "linux":
        from pytest_imu.core.counters.kernel.counts import Kernel

        parts.append(Kernel(by_kernel, samples=samples))
    return parts[0] if len(parts) == 1 else Together(events, parts)


def kernel_can_name(event: str) -> bool:
    """Tell whether the kernel's own call can be made here, and has a name for the event."""
    if sys.platform != "linux":
        return False
    from pytest_imu.core.counters.kernel.call import can_count
    from pytest_imu.core.counters.kernel.names import attrs_of

    return can_count() and bool(attrs_of(event))


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
    """Return what counted, as a document says it: "kernel and perf" say; None where nothing did.

    *caches* are those that other processes simulate, where no callgrind runs this one.
    """
    sources = {one.source for m in measured for one in m.counters if one.value is not None}
    if "callgrind" in sources:
        return f"callgrind, simulated caches {simulated_caches() or caches or 'not known'}"
    return " and ".join(sorted(sources)) or None
