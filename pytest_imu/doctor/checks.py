"""The doctor: what this machine can measure, and for each "no" why, and how to fix it."""

from __future__ import annotations

import mmap
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from pytest_imu.core.counters.callgrind import command as valgrind
from pytest_imu.core.counters.choice import source_of_counts
from pytest_imu.core.counters.perf import command as perf_command
from pytest_imu.core.counters.perf.command import PerfCommand
from pytest_imu.core.counters.perf.stat import PerfStat
from pytest_imu.core.counters.source import FIX_NO_PMU, FIX_REFUSED, CannotCountError, CounterSource
from pytest_imu.core.memory import platforms, reusable
from pytest_imu.core.memory import source as memory
from pytest_imu.core.memory.kernel import KernelPeak
from pytest_imu.core.memory.trim import process_trimmer
from pytest_imu.core.meter import Meter
from pytest_imu.core.model import CounterReading
from pytest_imu.core.units import format_count, format_mib, printable
from pytest_imu.doctor.callgrind_trial import count_simulated

SCHEMA = 1
EVENTS = ("cache-misses", "cache-references", "instructions", "page-faults", "task-clock")
PERF_EVENT = "page-faults"
PERF_NAME = f"perf {PERF_EVENT}"
SIMULATED_EVENT = "cache-misses"
SIMULATED_NAME = f"simulated {SIMULATED_EVENT}"
HARMLESS_PARANOID = 2
"""Up to this level the kernel lets everyone count what their own processes do."""

FIX_PEAK = "allow this process to write to /proc/self/clear_refs: no gVisor, hidepid or set-user-id"
FIX_ALLOCATOR = "use CPython with the GIL, without another allocator in PYTHONMALLOC or LD_PRELOAD"
FIX_LIBRARY_FORM = "report this, with the version of your C library"
FIX_PERF = (
    "install perf: linux-perf (Debian), linux-tools-generic (Ubuntu), perf (Fedora, Arch); "
    "without it only the events that perf alone can name are not counted"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the doctor's: *ok*, or why not and how to fix it."""

    name: str
    ok: bool
    value: str
    fix: str | None = None


def examine(
    *,
    platform: str = sys.platform,
    find: Callable[[], PerfCommand] = perf_command.find_perf,
    paranoid: Callable[[], int | None] = perf_command.paranoid_level,
    find_valgrind: Callable[[], tuple[str, str]] = valgrind.find_valgrind,
) -> Iterator[Check]:
    """Return what every part of this machine says, each tried for real."""
    yield from _memory_checks()
    if platform != "linux":
        yield Check(name="perf", ok=False, value=f"perf is part of Linux, and this is {platform}")
        return
    yield from _event_checks(paranoid)
    yield from _perf_checks(find)
    yield from _valgrind_checks(find_valgrind)


def _memory_checks() -> Iterator[Check]:
    source = memory.peak_source()
    with Meter() as meter_window:
        pass
    measured = meter_window.measurement
    reader = platforms.platform_readers().label
    value = f"{format_mib(measured.after_bytes)} MiB now, from {reader}"
    yield Check(name="memory", ok=measured.after_bytes is not None, value=measured.reason or value)
    exact = isinstance(source, KernelPeak)
    yield Check(
        name="peak",
        ok=exact,
        value=source.label
        + (f", to {format_mib(source.resolution_bytes, decimals=2)} MiB" if exact else ""),
        fix=None if exact else FIX_PEAK,
    )
    yield trim_check()
    yield reusable_check()


def trim_check() -> Check:
    """Return whether freed memory is given back before a window: another allocator keeps it."""
    if allocator := reusable.other_allocator():
        value = f"malloc_trim does not return memory that {allocator} keeps"
        return Check(name="trim", ok=False, value=value, fix=FIX_ALLOCATOR)
    trims = process_trimmer().available
    return Check(name="trim", ok=trims, value="malloc_trim" if trims else "only glibc has malloc_trim")


def reusable_check(
    *,
    in_python: Callable[[], int | None] = reusable.free_in_pymalloc,
    in_thread_heaps: Callable[[], int | None] = reusable.free_in_thread_heaps,
    build: Callable[[str], object] = sysconfig.get_config_var,
) -> Check:
    """Return whether the allocators report their free memory: a test may use that without any peak."""
    if allocator := reusable.preloaded_allocator():
        value = f"{allocator} does not report its free memory: tests may reuse it without a peak"
        return Check(name="reusable", ok=False, value=value, fix=FIX_ALLOCATOR)
    if in_python() is None:
        whose = "this free-threaded build's" if build("Py_GIL_DISABLED") else "this Python's"
        value = f"{whose} allocator does not report its free memory: tests may reuse it without a peak"
        return Check(name="reusable", ok=False, value=value, fix=FIX_ALLOCATOR)
    if in_thread_heaps() is None:
        value = "this C library reports its free memory in an unknown format"
        return Check(name="reusable", ok=False, value=value, fix=FIX_LIBRARY_FORM)
    return Check(name="reusable", ok=True, value="the allocators report their free memory")


def _event_checks(paranoid: Callable[[], int | None]) -> Iterator[Check]:
    level = paranoid()
    fine = level is not None and level <= HARMLESS_PARANOID
    yield Check(
        name="perf_event_paranoid",
        ok=fine,
        value="cannot be read" if level is None else str(level),
        fix=None if fine else FIX_REFUSED,
    )
    yield from map(_event_check, _counted(source_of_counts(EVENTS)))


def _perf_checks(find: Callable[[], PerfCommand]) -> Iterator[Check]:
    try:
        command = find()
    except CannotCountError as error:
        yield Check(name="perf", ok=False, value=str(error), fix=FIX_PERF)
        return
    yield Check(name="perf", ok=True, value=f"{command.version_text}, {command.path}")
    yield Check(
        name="perf --control",
        ok=command.has_control,
        value="yes" if command.has_control else "no: it needs perf 5.10",
        fix=None if command.has_control else FIX_PERF,
    )
    [reading] = _counted(PerfStat([PERF_EVENT], find=lambda: command))
    yield replace(_event_check(reading), name=PERF_NAME)


def _counted(counters: CounterSource) -> tuple[CounterReading, ...]:
    try:
        with Meter(counters=counters) as window, mmap.mmap(-1, 2**20) as block:
            block.write(bytes(2**20))
    finally:
        counters.stop()
    return window.measurement.counters


def _event_check(reading: CounterReading) -> Check:
    if reading.value is not None:
        unit = " ms" if reading.event.endswith("-clock") else ""
        where = ", in user space only" if reading.user_only else ""
        value = f"{reading.value:,}{unit} while 1 MiB was filled{where}"
        return Check(name=reading.event, ok=True, value=value)
    reason, fix = reading.reason or "not counted", ""
    if reading.source == "kernel":  # its reasons say themselves what fixes them
        reason, _, fix = reason.partition(": ")
    fix = fix or (FIX_NO_PMU if reason.startswith("not ") else FIX_REFUSED)
    return Check(name=reading.event, ok=False, value=reason, fix=fix)


def _valgrind_checks(find_valgrind: Callable[[], tuple[str, str]]) -> Iterator[Check]:
    try:
        path, version = find_valgrind()
    except CannotCountError as error:
        yield Check(name="valgrind", ok=False, value=str(error), fix=valgrind.FIX)
        return
    yield Check(name="valgrind", ok=True, value=f"{version}, {path}")
    try:
        simulated = count_simulated(path, SIMULATED_EVENT)
    except CannotCountError as error:
        yield Check(name=SIMULATED_NAME, ok=False, value=str(error), fix=valgrind.FIX)
    else:
        value = f"{format_count(simulated)} while 1 MiB was read"
        yield Check(name=SIMULATED_NAME, ok=True, value=value)


def text_lines(checks: list[Check]) -> list[str]:
    """Return the checks for people: aligned, each fix once, below the last "no" that it is for."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check, following in zip(checks, [*checks[1:], None], strict=True):
        lines.append(f"{'yes' if check.ok else 'no ':3}  {check.name:{width}}  {printable(check.value)}")
        if check.fix and (following is None or following.fix != check.fix):
            lines.append(f"{'':{width + 7}}fix: {check.fix}")
    return lines


def document(checks: list[Check]) -> dict[str, Any]:
    """Return the checks for programs."""
    return {"schema": SCHEMA, "checks": [asdict(check) for check in checks]}


def memory_can_be_measured(checks: list[Check]) -> bool:
    """Tell whether the doctor's exit status is 0."""
    return any(check.name == "memory" and check.ok for check in checks)
