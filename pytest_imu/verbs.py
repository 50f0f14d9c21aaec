"""The verbs that work on files of `--imu-json`: compare, report, merge, approve and summary."""

from __future__ import annotations

import argparse
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pytest_imu.core.invalid import InvalidValueError
from pytest_imu.core.outfile import STDOUT, check_writable
from pytest_imu.core.units import plural

if TYPE_CHECKING:
    from pytest_imu.core.growth import Increase
    from pytest_imu.history.compare import Comparison
    from pytest_imu.history.load import Run
    from pytest_imu.report.rows import Row
    from pytest_imu.settings import Settings

FAILED, UNUSABLE = 1, 2
"""What a verb exits with where a comparison failed, and where it cannot do what was asked."""
FILES = "a file of --imu-json, several, a pattern, or - for standard input"
Options = argparse.Namespace


def add_verbs(commands: Any) -> None:  # Any: argparse has no public type for it
    """Declare the verbs, each with the function that runs it."""
    compare = commands.add_parser("compare", help="compare a run with an earlier one")
    compare.add_argument("base", help=f"the earlier run: {FILES}")
    compare.add_argument("files", nargs="+", metavar="now", help=f"the later run: {FILES}")
    _add_increase(compare)
    compare.add_argument("--top", type=_count, default=10, help="rows to show (default: 10; 0: all)")
    compare.add_argument("--json", action="store_true", help="print JSON")
    compare.set_defaults(run=run_compare)
    report = commands.add_parser("report", help="print the section of a run, or of a run log")
    report.add_argument("files", nargs="+", help=f"{FILES}, or of --imu-log")
    report.add_argument("--base", help="the earlier run to compare it with")
    _add_increase(report)
    report.add_argument("--top", type=_count, default=10, help="rows to show (default: 10; 0: all)")
    report.add_argument("--sort", choices=_sort_keys(), default="peak", help="default: peak")
    report.set_defaults(run=run_report)
    merge = commands.add_parser("merge", help="make one file of those of several machines")
    merge.add_argument("files", nargs="+", help=FILES)
    merge.add_argument("-o", "--output", required=True, metavar="PATH", help="the file to write")
    merge.add_argument("--expect", type=_count, metavar="N", help="how many files there must be")
    merge.set_defaults(run=run_merge)
    summary = commands.add_parser("summary", help="print a run in Markdown")
    summary.add_argument("files", nargs="+", help=FILES)
    summary.add_argument("--base", help="the earlier run to compare it with")
    _add_increase(summary)
    summary.set_defaults(run=run_summary)
    approve = commands.add_parser("approve", help="put a run's numbers into the limits of its tests")
    approve.add_argument("files", nargs="+", help=FILES)
    approve.add_argument("--write", action="store_true", help="change the files; else print a diff")
    approve.add_argument(
        "--headroom",
        type=_percent,
        default=25.0,
        metavar="25%%",
        help="above the number (default: 25%%)",
    )
    approve.add_argument("--tighten", action="store_true", help="lower limits that are far too wide")
    approve.add_argument("--add", action="store_true", help="add a limit where a large test has none")
    approve.add_argument(
        "--min-mib", type=_mib, default=5.0, metavar="MIB", help="what is large (default: 5)"
    )
    approve.add_argument("--only", metavar="PATTERN", help="only tests whose id has this in it")
    approve.set_defaults(run=run_approve)


def run_compare(options: Options) -> int:
    """Print how a run differs from an earlier one; with `--fail-increase`, fail for what grew."""
    from pytest_imu.history.compare import compare_runs, read_side
    from pytest_imu.history.load import named_files

    base, now = (read_side(*named_files(names)) for names in ([options.base], options.files))
    comparison = compare_runs(base, now, options.fail_increase)
    if options.json:
        import json

        from pytest_imu.history.wording import plain_comparison

        print(json.dumps(plain_comparison(comparison), indent=1))
    else:
        print("\n".join(_comparison_lines(comparison, top=options.top)))
    return _status(comparison)


def _comparison_lines(comparison: Comparison, *, top: int) -> list[str]:
    from pytest_imu.history import wording

    return [
        *wording.table(comparison, width=_width(), top=top),
        wording.counts_line(comparison),
        *wording.doubt_lines(comparison),
        *wording.difference_lines(comparison),
        *wording.failed_lines(comparison),
    ]


def _status(comparison: Comparison) -> int:
    if not comparison.compared:
        print("pytest-imu: no test could be compared, so nothing is proved", file=sys.stderr)
    return FAILED if comparison.failed or not comparison.compared else 0


def run_report(options: Options) -> int:
    """Print what a run's section says."""
    from pytest_imu.history.load import named_files
    from pytest_imu.history.merge import joined_environment
    from pytest_imu.history.wording import failed_lines
    from pytest_imu.report import section
    from pytest_imu.report.rows import last_attempts

    names = named_files(options.files)
    runs = read_rows(names)
    environment = joined_environment(runs)
    comparison = _compared_with(options, names)
    rows = last_attempts([row for run in runs for row in run.tests])
    lines = section.lines(
        rows,
        _settings(environment, options),
        width=_width(),
        verbosity=0,
        encoding=sys.stdout.encoding,
        noise_bytes=environment["noise_floor_bytes"],
        resolution_bytes=environment["peak_resolution_bytes"],
        comparison=comparison,
    )
    texts = [*(line.text for line in lines), *section.killed_lines(rows)]
    # A run that was compared as it ran has said some of it already.
    more = [] if comparison is None else failed_lines(comparison)
    print("\n".join([*texts, *(line for line in more if line not in texts)]))
    return 0 if comparison is None else _status(comparison)


def run_summary(options: Options) -> int:
    """Print a run in Markdown."""
    from pytest_imu.history.load import named_files
    from pytest_imu.report.rows import last_attempts
    from pytest_imu.report.summary import MAX_BYTES, cut, markdown

    names = named_files(options.files)
    rows = last_attempts([row for run in read_rows(names) for row in run.tests])
    comparison = _compared_with(options, names)
    print(cut(markdown(rows, comparison), MAX_BYTES), end="")
    return 0 if comparison is None else _status(comparison)


def _compared_with(options: Options, names: Sequence[str]) -> Comparison | None:
    from pytest_imu.history.compare import compare_runs, read_side
    from pytest_imu.history.load import named_files

    if options.base is None:
        return None
    base = read_side(*named_files([options.base]))
    return compare_runs(base, read_side(*names), options.fail_increase)


def read_rows(names: Sequence[str]) -> list[Run[Row]]:
    """Read files into rows; raises UnusableFileError."""
    from pytest_imu.history.load import read
    from pytest_imu.report.rows import Row

    return [read(name, lambda test, _: Row.from_dict(test)) for name in names]


def _settings(environment: dict[str, Any], options: Options) -> Settings:
    from pytest_imu.settings import Settings

    _, _, caches = (environment["counter_source"] or "").partition("simulated caches ")
    return Settings(report=True, top=options.top, sort=options.sort, caches=caches or None)


def run_merge(options: Options) -> int:
    """Write one file of several."""
    from pytest_imu.core import document
    from pytest_imu.history import merge
    from pytest_imu.history.load import UnusableFileError, named_files, read

    names, output = named_files(options.files), Path(options.output)
    if options.expect is not None and len(names) != options.expect:
        print(f"pytest-imu: {len(names)} files, and --expect={options.expect}", file=sys.stderr)
        return UNUSABLE
    if output != STDOUT and any(_is_same(output, name) for name in names):
        raise UnusableFileError(options.output, "another file to write than those to read")
    check_writable(output)
    runs = [read(name, merge.attempt_of) for name in names]
    for line in merge.disagreements(runs):
        print(line, file=sys.stderr)
    tests = list(merge.merged(runs))
    document.write_encoded(output, tests, merge.joined_environment(runs))
    if output != STDOUT:
        different = len({attempt.nodeid for run in runs for attempt in run.tests})
        print(f"{options.output}: {different} tests of {len(names)} files")
    return 0


def run_approve(options: Options) -> int:
    """Print what a run changes in its tests' sources, or change it."""
    from pytest_imu.core.outfile import replace_all
    from pytest_imu.history import approve, wishes
    from pytest_imu.history.load import named_files, read
    from pytest_imu.history.merge import joined_environment

    runs = [read(name, wishes.measured_of) for name in named_files(options.files)]
    tests = (test for run in runs for test in run.tests)
    wished = wishes.Wishes(
        headroom_percent=options.headroom,
        tighten=options.tighten,
        add=options.add,
        only=options.only,
        min_mib=options.min_mib,
    )
    try:
        planned = approve.plan(
            tests, joined_environment(runs), wished, lambda name: Path(name).read_bytes()
        )
    except wishes.ChangedError as error:
        print(f"pytest-imu: {error}", file=sys.stderr)
        return UNUSABLE
    edited = {path: file.edited(edits) for path, (file, edits) in planned.files.items()}
    if options.write:
        replace_all(edited)
    else:
        for path, (file, _) in planned.files.items():
            sys.stdout.writelines(file.diff(path, edited[path]))
    for line in planned.left_alone:
        print(line, file=sys.stderr)
    done = "changed" if options.write else "to change; --write does it"
    print(f"{plural(len(edited), 'file')} {done}", file=sys.stderr)
    return 0


def _is_same(path: Path, name: str) -> bool:
    return path.exists() and name != str(STDOUT) and path.samefile(name)


def _width() -> int:
    return shutil.get_terminal_size().columns


def _add_increase(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fail-increase",
        action="extend",
        default=[],
        type=_increases,
        metavar="INCREASE",
        help="fail where a test grew by more, as 10%%+2 or delta:10%%; may be repeated",
    )


def _increases(text: str) -> list[Increase]:
    from pytest_imu.core.growth import parse_increase

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
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(str(InvalidValueError(text, expected)))
    return number


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(str(InvalidValueError(text, "a whole number, 0 or more")))
    return int(text)


def _sort_keys() -> Sequence[str]:
    from pytest_imu.kinds import SortKey

    return get_args(SortKey)
