"""What the verbs are called with."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, get_args

from pytest_imu.core.growth import Increase, parse_increase
from pytest_imu.core.invalid import InvalidValueError, parse_number
from pytest_imu.verbs.run import run_approve, run_compare, run_merge, run_report, run_summary

FILES = "files of --imu-json, patterns, or - for standard input"
TOP = "show the first N rows; 0 shows all (default: 10)"


def add_verbs(commands: Any) -> None:  # Any: argparse has no public type for it
    """Declare the verbs, each with the function that runs it."""
    compare = commands.add_parser("compare", help="compare a run with an earlier one")
    compare.add_argument("base", help="the earlier run: a file of --imu-json, a pattern, or -")
    compare.add_argument("files", nargs="+", metavar="now", help=f"the later run: {FILES}")
    add_increase(compare)
    compare.add_argument("--top", type=_count, default=10, metavar="N", help=TOP)
    compare.add_argument("--json", action="store_true", help="print JSON")
    compare.set_defaults(run=run_compare)
    report = commands.add_parser("report", help="print the section of a run again, or that of a run log")
    report.add_argument("files", nargs="+", help=f"{FILES}; also files of --imu-log")
    report.add_argument("--base", help="the earlier run to compare with")
    add_increase(report)
    report.add_argument("--top", type=_count, default=10, metavar="N", help=TOP)
    report.add_argument("--sort", choices=_sort_keys(), default="peak", help="(default: peak)")
    report.set_defaults(run=run_report)
    merge = commands.add_parser("merge", help="merge the files of several runs into one")
    merge.add_argument("files", nargs="+", help=FILES)
    merge.add_argument("-o", "--output", required=True, metavar="PATH", help="the file to write")
    merge.add_argument("--expect", type=_count, metavar="N", help="fail unless there are N files")
    merge.set_defaults(run=run_merge)
    summary = commands.add_parser("summary", help="print a summary of a run in Markdown")
    summary.add_argument("files", nargs="+", help=FILES)
    summary.add_argument("--base", help="the earlier run to compare with")
    add_increase(summary)
    summary.set_defaults(run=run_summary)
    approve = commands.add_parser("approve", help="raise broken limits to a run's numbers")
    approve.add_argument("files", nargs="+", help=FILES)
    approve.add_argument("--write", action="store_true", help="change the files, not only print a diff")
    approve.add_argument(
        "--headroom",
        type=_percent,
        default=25.0,
        metavar="PERCENT",
        help="the room above each number (default: 25%%)",
    )
    approve.add_argument("--tighten", action="store_true", help="also lower limits that are too wide")
    approve.add_argument("--add", action="store_true", help="also add limits to large tests without one")
    approve.add_argument(
        "--min-mib", type=_mib, default=5.0, metavar="MIB", help="what a large test takes (default: 5)"
    )
    approve.add_argument("--only", metavar="PATTERN", help="only tests whose id contains PATTERN")
    approve.set_defaults(run=run_approve)


def add_increase(parser: argparse.ArgumentParser) -> None:
    """Declare the option that says what counts as grown."""
    parser.add_argument(
        "--fail-increase",
        action="extend",
        default=[],
        type=_increases,
        metavar="INCREASE",
        help="fail if a test grew by more, such as 10%%+2 or delta:10%%; may be repeated",
    )


def _increases(text: str) -> list[Increase]:
    try:
        return [parse_increase(part) for part in text.split(",")]
    except InvalidValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _percent(text: str) -> float:
    return _number(text.removesuffix("%"), "a percentage, 0% or more")


def _mib(text: str) -> float:
    return _number(text, "a number of MiB, 0 or more")


def _number(text: str, expected: str) -> float:
    try:
        return parse_number(text)
    except ValueError:
        raise argparse.ArgumentTypeError(str(InvalidValueError(text, expected))) from None


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(str(InvalidValueError(text, "a whole number, 0 or more")))
    return int(text)


def _sort_keys() -> Sequence[str]:
    from pytest_imu.kinds import SortKey

    return get_args(SortKey)
