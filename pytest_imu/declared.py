"""Every option, declared as a field: what it is called, what it takes, and what it does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_imu import kinds
from pytest_imu.core.counters.source import CACHE_MISSES, CounterChoice
from pytest_imu.kinds import Cpu, OnBreach, SortKey, Which, WhyWhich
from pytest_imu.options import option

if TYPE_CHECKING:
    from pytest_imu.core.growth import Increase
    from pytest_imu.core.sizes import Cap
    from pytest_imu.core.tolerance import Tolerance


# Settings makes what is to be had of a dataclass: to make it here too would take a start of pytest 2 ms.
@dataclass(frozen=True, slots=True, kw_only=True, init=False, repr=False, eq=False)
class Declared:
    """What the user may ask for."""

    report: bool = option(
        "imu", kinds.FLAG, "Report the memory of every test.", default=False, turns_on=True
    )
    off: bool = option(
        "no_imu", kinds.FLAG, "Measure nothing and enforce no budgets.", default=False, in_ini=False
    )
    top: int = option("imu_top", kinds.COUNT, "Show the first N rows; 0 shows all.", default=10)
    sort: SortKey = option("imu_sort", kinds.SORT, "Sort the rows by KEY.", default="peak")
    min_mib: float | None = option(
        "imu_min_mib",
        kinds.SIZE,
        "Show rows, and suggest budgets, only for peaks of at least MIB.",
        default=None,
        usual="0, and 5 for --imu-suggest",
    )
    max_peak_mib: float | None = option(
        "imu_max_peak_mib",
        kinds.SIZE,
        "Fail tests whose peak is over MIB. A max_peak_mib marker takes precedence.",
        default=None,
    )
    max_delta_mib: float | None = option(
        "imu_max_delta_mib",
        kinds.SIZE,
        "Fail tests that keep more than MIB. A max_delta_mib marker takes precedence.",
        default=None,
    )
    tolerance: Tolerance | None = option(
        "imu_tolerance",
        kinds.TOLERANCE,
        "Allow tests to exceed their budgets by this much: MiB, or a percentage.",
        default=None,
    )
    suggest: bool = option(
        "imu_suggest",
        kinds.FLAG,
        "Print a max_peak_mib marker for each test that passed.",
        default=False,
        in_ini=False,
        turns_on=True,
    )
    perf_events: tuple[str, ...] = option(
        "imu_perf",
        kinds.EVENTS,
        "Count these events in each test; --imu-perf alone counts cache-misses.",
        default=(),
        bare=CACHE_MISSES,
        turns_on=True,
    )
    counters: CounterChoice = option(
        "imu_counters",
        kinds.COUNTERS,
        "What counts events: auto asks the kernel, and perf for what only perf can name.",
        default="auto",
    )
    simulate: Which = option(
        "imu_simulate",
        kinds.WHICH,
        "Count events under valgrind, in all tests or only in those with an event budget.",
        default="off",
        bare="all",
        turns_on=True,
    )
    caches: str | None = option(
        "imu_caches",
        kinds.CACHES,
        "The caches that --imu-simulate simulates.",
        default=None,
        usual="I1=32768,8,64 D1=32768,8,64 LL=8388608,16,64",
        on_command_line=False,
    )
    simulate_cpu: Cpu = option(
        "imu_simulate_cpu",
        kinds.CPU,
        "The CPU that libraries choose their code for under --imu-simulate.",
        default="baseline",
        on_command_line=False,
    )
    warmup: int = option(
        "imu_warmup",
        kinds.COUNT,
        "Call a test with an event budget this many times before counting.",
        default=0,
        on_command_line=False,
    )
    children: bool = option(
        "imu_children",
        kinds.FLAG,
        "Report the memory of each test's child processes as well.",
        default=False,
        turns_on=True,
    )
    isolate: Which = option(
        "imu_isolate",
        kinds.ISOLATE,
        "Run each test, or only those with a budget, in a process of its own.",
        default="off",
        bare="all",
    )
    isolate_timeout_s: int = option(
        "imu_isolate_timeout",
        kinds.SECONDS,
        "End an isolated test after N seconds, and show where it was; 0 never does.",
        default=0,
        on_command_line=False,
    )
    why: WhyWhich = option(
        "imu_why",
        kinds.WHY,
        "Run tests that broke a budget or grew, or all, once more; show the lines behind the number.",
        default="off",
        bare="broken",
    )
    why_top: int = option(
        "imu_why_top",
        kinds.COUNT,
        "Show N lines of what was kept, or held at the peak; 0 shows all.",
        default=5,
    )
    why_keep: Path | None = option(
        "imu_why_keep",
        kinds.FILE,
        "Keep memray's file of each run of --imu-why in the folder PATH, for `memray flamegraph`.",
        default=None,
        in_ini=False,
    )
    why_timeout_s: int = option(
        "imu_why_timeout",
        kinds.SECONDS,
        "End such a run after N seconds, or ten times the first run's time if that is longer.",
        default=30,
        on_command_line=False,
    )
    json_path: Path | None = option(
        "imu_json", kinds.FILE, "Write all measurements to PATH as JSON.", default=None, in_ini=False
    )
    log_path: Path | None = option(
        "imu_log",
        kinds.FILE,
        "Write a JSON line to PATH when a test starts and when it ends.",
        default=None,
        in_ini=False,
    )
    leaks: tuple[int, int] | None = option(
        "imu_leaks",
        kinds.LEAKS,
        "Call each test's body again, WARMUP and CALLS times, and fail tests that grow with every call.",
        default=None,
        bare="3:8",
    )
    timeline_ns: int | None = option(
        "imu_timeline",
        kinds.INTERVAL,
        "Sample the memory of the process and its children every INTERVAL while tests run.",
        default=None,
        bare="10ms",
    )
    confirm: bool = option(
        "imu_confirm",
        kinds.FLAG,
        "Run a test once more, alone, if earlier tests may have decided about its memory budget.",
        default=True,
        on_command_line=False,
    )
    compare_path: Path | None = option(
        "imu_compare",
        kinds.FILE,
        "Compare each test with its numbers in PATH, which an earlier run wrote with --imu-json.",
        default=None,
        in_ini=False,
        turns_on=True,
    )
    compare_if_exists: bool = option(
        "imu_compare_if_exists",
        kinds.FLAG,
        "Run without comparing if the file of --imu-compare does not exist.",
        default=False,
        in_ini=False,
    )
    fail_increase: tuple[Increase, ...] = option(
        "imu_fail_increase",
        kinds.INCREASES,
        "Fail tests that grew by more than INCREASE since the run of --imu-compare; may be repeated.",
        default=(),
        repeated=True,
    )
    compare_required: bool = option(
        "imu_compare_required",
        kinds.FLAG,
        "Fail a run in which no test could be compared.",
        default=True,
        on_command_line=False,
    )
    summary_path: Path | None = option(
        "imu_summary",
        kinds.SUMMARY,
        "Append a Markdown summary to PATH, or with --imu-summary alone to $GITHUB_STEP_SUMMARY.",
        default=None,
        in_ini=False,
        bare=kinds.STEP_SUMMARY,
    )
    html_path: Path | None = option(
        "imu_html",
        kinds.FILE,
        "Write the run to PATH as a page for a browser; needs pip install 'pytest-imu[html]'.",
        default=None,
        in_ini=False,
    )
    limit: Cap | None = option(
        "imu_limit",
        kinds.CAP,
        "Fail the test that takes the run past SIZE, before the system kills the run.",
        default=None,
    )
    hard: bool = option(
        "imu_hard",
        kinds.FLAG,
        "Make every max_peak_mib of a test's body a hard limit, as hard=True does.",
        default=False,
        on_command_line=False,
    )
    on_breach: OnBreach = option(
        "imu_on_breach",
        kinds.ON_BREACH,
        "What a broken budget does: fail the test, or only warn.",
        default="fail",
        on_command_line=False,
    )
    perf_required: bool = option(
        "imu_perf_required",
        kinds.FLAG,
        "Fail tests whose event budgets could not be checked.",
        default=False,
        on_command_line=False,
    )
    trim: bool = option(
        "imu_trim",
        kinds.FLAG,
        "Return freed memory to the system before measuring (glibc only).",
        default=True,
        on_command_line=False,
    )
    gc: bool = option(
        "imu_gc",
        kinds.FLAG,
        "Run a full garbage collection before measuring.",
        default=False,
        on_command_line=False,
    )
    junit: bool = option(
        "imu_junit",
        kinds.FLAG,
        "Add imu_* properties to each test of the JUnit XML.",
        default=True,
        on_command_line=False,
    )
