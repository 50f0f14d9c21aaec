"""Every option of the command line and the ini file, and the one text that explains it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from pytest_imu.core.counters.source import CACHE_MISSES

IMU_HELP = "Report the memory of every test after the run."


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting, spelled `imu_top` in the ini file and `--imu-top` on the command line."""

    name: str
    help: str
    kind: Literal["bool", "int", "float", "string"]
    default: object
    metavar: str | None = None
    bare: str | None = None
    """What the flag means without a value; None where it must have one."""
    on_command_line: bool = True
    in_ini: bool = True

    @property
    def flag(self) -> str:
        """The spelling on the command line."""
        return "--" + self.name.replace("_", "-")


OPTIONS = (
    Option(
        name="imu_top",
        metavar="N",
        kind="int",
        default=10,
        help="Show the N largest rows in the section; 0 shows all. Default: 10.",
    ),
    Option(
        name="imu_sort",
        metavar="KEY",
        kind="string",
        default="peak",
        help="Sort the section by peak, delta, total, time or name. Default: peak.",
    ),
    Option(
        name="imu_min_mib",
        metavar="MIB",
        kind="float",
        default=0.0,
        help="Leave rows whose peak is under MIB out of the section. Default: 0.",
    ),
    Option(
        name="imu_max_peak_mib",
        metavar="MIB",
        kind="float",
        default=None,
        help="Fail each test whose peak is over MIB, unless its own max_peak_mib says otherwise.",
    ),
    Option(
        name="imu_max_delta_mib",
        metavar="MIB",
        kind="float",
        default=None,
        help="Fail each test that keeps over MIB, unless its own max_delta_mib says otherwise.",
    ),
    Option(
        name="imu_perf",
        metavar="EVENTS",
        kind="string",
        default=(),
        bare=CACHE_MISSES,
        help="Count these events in each test's call with perf, and report them; turns --imu on. "
        "Separated by commas, given with '='. Default: cache-misses.",
    ),
    Option(
        name="imu_simulate",
        metavar="WHICH",
        kind="string",
        default="off",
        bare="all",
        help="Run the tests under valgrind, which simulates caches and counts the same everywhere: off, "
        "budgets (the tests that have one on events) or all, given with '='; turns --imu on. "
        "Default: off.",
    ),
    Option(
        name="imu_caches",
        kind="string",
        default=None,
        on_command_line=False,
        help="The caches that --imu-simulate simulates, each with its bytes, ways and bytes of a line. "
        "Default: I1=32768,8,64 D1=32768,8,64 LL=8388608,16,64.",
    ),
    Option(
        name="imu_warmup",
        kind="int",
        default=0,
        on_command_line=False,
        help="How often a test with a budget on events is called before it is counted, unless its own "
        "warmup says otherwise. Default: 0.",
    ),
    Option(
        name="imu_tolerance",
        metavar="SIZE",
        kind="string",
        default=None,
        help="Let every budget be passed by so many MiB, or with a percent sign by that share of it. "
        "Default: nothing.",
    ),
    Option(
        name="imu_suggest",
        kind="bool",
        default=False,
        in_ini=False,
        help="Print a max_peak_mib line for each test that passed: what it measured and a quarter more.",
    ),
    Option(
        name="imu_isolate",
        metavar="WHICH",
        kind="string",
        default="off",
        bare="all",
        help="Run tests in forked children of a process that has run none, so that no test reuses "
        "another's memory: off, budgets (the tests that have one) or all, given with '='. Default: off.",
    ),
    Option(
        name="imu_children",
        kind="bool",
        default=False,
        help="Report the memory of each test's child processes too (PSS, sampled); turns --imu on. "
        "Default: false.",
    ),
    Option(
        name="imu_json",
        metavar="PATH",
        kind="string",
        default=None,
        in_ini=False,
        help="Write every test's measurements to PATH, as JSON.",
    ),
    Option(
        name="imu_log",
        metavar="PATH",
        kind="string",
        default=None,
        in_ini=False,
        help="Write a JSON line to PATH when a test starts and when it ends; survives a kill.",
    ),
    Option(
        name="imu_on_breach",
        kind="string",
        default="fail",
        on_command_line=False,
        help="What a broken budget does to its test: fail or warn. Default: fail.",
    ),
    Option(
        name="imu_perf_required",
        kind="bool",
        default=False,
        on_command_line=False,
        help="Fail a test whose count could not be held against its budget. Default: false.",
    ),
    Option(
        name="imu_trim",
        kind="bool",
        default=True,
        on_command_line=False,
        help="Give freed memory back (glibc's malloc_trim) before measuring. Default: true.",
    ),
    Option(
        name="imu_gc",
        kind="bool",
        default=False,
        on_command_line=False,
        help="Run a full garbage collection before measuring. Default: false.",
    ),
    Option(
        name="imu_junit",
        kind="bool",
        default=True,
        on_command_line=False,
        help="Add imu_* properties to each test of the JUnit XML. Default: true.",
    ),
)


def add_options(parser: pytest.Parser) -> None:
    """Declare every option, on the command line and in the ini file, with one text for both."""
    group = parser.getgroup("imu", "memory of each test (pytest-imu)")
    group.addoption("--imu", action="store_true", default=None, help=IMU_HELP)
    group.addoption(
        "--no-imu",
        action="store_true",
        default=None,
        help="Measure nothing and enforce no budget; wins over --imu and the ini file.",
    )
    parser.addini("imu", IMU_HELP, type="bool", default=False)
    for option in OPTIONS:
        if option.on_command_line:
            group.addoption(
                option.flag, default=None, dest=option.name, help=option.help, **_arguments(option)
            )
        if option.in_ini:
            parser.addini(option.name, option.help, type=_ini_type(option), default=None)


def _arguments(option: Option) -> dict[str, Any]:
    """Return what argparse is told about a flag's value."""
    if option.kind == "bool":
        return {"action": "store_true"}
    # Text, and not argparse's types: both sources then get the same checks and messages.
    optional = {} if option.bare is None else {"nargs": "?", "const": option.bare}
    return {"metavar": option.metavar, **optional}


def _ini_type(
    option: Option,
) -> Any:  # Any: the names that pytest's own type knows differ by version
    # Since pytest 8.4 numbers have types, which pytest 9's own TOML tables need to accept numbers.
    numbers_have_types = pytest.version_tuple >= (8, 4)
    if option.kind in ("int", "float") and not numbers_have_types:
        return "string"
    return option.kind
