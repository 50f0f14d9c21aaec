"""The verbs that work on files of `--imu-json`: compare, report, merge, approve and summary."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_imu.core import document
from pytest_imu.core.invalid import RefusedError
from pytest_imu.core.outfile import STDOUT, check_writable, replace_all
from pytest_imu.core.system import without_collector
from pytest_imu.core.units import plural
from pytest_imu.history import merge, wording
from pytest_imu.history.compare import Comparison, compare_runs
from pytest_imu.history.entries import read_sides
from pytest_imu.history.load import Run, UnusableFileError, named_files, read, read_all

if TYPE_CHECKING:
    from pytest_imu.report.rows import Row
    from pytest_imu.settings import Settings

FAILED = 1
"""What a verb exits with where a comparison failed."""
Options = argparse.Namespace


@without_collector()
def run_compare(options: Options) -> int:
    """Print how a run differs from an earlier one; with --fail-increase, fail for what grew."""
    base, now = read_sides(named_files([options.base]), named_files(options.files))
    comparison = compare_runs(base, now, options.fail_increase)
    if options.json:
        print(json.dumps(wording.plain_comparison(comparison), indent=1))
    else:
        print("\n".join(_comparison_lines(comparison, top=options.top)))
    return status(comparison)


def _comparison_lines(comparison: Comparison, *, top: int) -> list[str]:
    return [
        *wording.table(comparison, width=_width(), top=top),
        wording.counts_line(comparison),
        *wording.doubt_lines(comparison),
        *wording.difference_lines(comparison),
        *wording.failed_lines(comparison),
    ]


def status(comparison: Comparison) -> int:
    """Return what a verb exits with that has compared something."""
    if not comparison.compared:
        print("pytest-imu: no test could be compared, so the comparison fails", file=sys.stderr)
    return FAILED if comparison.failed or not comparison.compared else 0


@without_collector()
def run_report(options: Options) -> int:
    """Print the section "imu" of a run again, or that of a run log, as a killed run leaves it."""
    from pytest_imu.report import section
    from pytest_imu.report.rows import last_attempts

    names = named_files(options.files)
    runs = read_rows(names)
    environment = merge.joined_environment(runs)
    comparison = compared_with(options, names)
    rows = last_attempts([row for run in runs for row in run.tests])
    lines = section.lines(
        rows,
        settings_of(environment, top=options.top, sort=options.sort),
        width=_width(),
        verbosity=0,
        encoding=sys.stdout.encoding,
        noise_bytes=environment["noise_floor_bytes"],
        resolution_bytes=environment["peak_resolution_bytes"],
        comparison=comparison,
        failures_shown=False,
    )
    texts = [*(line.text for line in lines), *section.killed_lines(rows)]
    # A run that was compared as it ran has said some of it already.
    grown = [] if comparison is None else wording.failed_lines(comparison)
    print("\n".join([*texts, *(line for line in grown if line not in texts)]))
    return 0 if comparison is None else status(comparison)


@without_collector()
def run_summary(options: Options) -> int:
    """Print a summary of a run in Markdown: broken budgets, what grew, the largest tests."""
    from pytest_imu.report.rows import last_attempts
    from pytest_imu.report.summary import MAX_BYTES, cut, markdown

    names = named_files(options.files)
    rows = last_attempts([row for run in read_rows(names) for row in run.tests])
    comparison = compared_with(options, names)
    print(cut(markdown(rows, comparison), MAX_BYTES), end="")
    return 0 if comparison is None else status(comparison)


def compared_with(options: Options, names: Sequence[str]) -> Comparison | None:
    """Return the run beside the one of `--base`; None without."""
    if options.base is None:
        return None
    base, now = read_sides(named_files([options.base]), names)
    return compare_runs(base, now, options.fail_increase)


def read_rows(names: Sequence[str]) -> list[Run[Row]]:
    """Read files into rows; raises UnusableFileError."""
    from pytest_imu.report.rows import Row

    return [
        read(name, lambda test, *_, run=run: Row.from_dict(test, run)) for run, name in enumerate(names)
    ]


def settings_of(environment: dict[str, Any], **asked: Any) -> Settings:
    """Return the settings under which a run is shown again."""
    from pytest_imu.settings import Settings

    _, _, caches = (environment["counter_source"] or "").partition("simulated caches ")
    return Settings(report=True, caches=caches or None, **asked)


@without_collector()
def run_merge(options: Options) -> int:
    """Merge the files of several runs, such as shards, into one."""
    names, output = named_files(options.files), Path(options.output)
    if options.expect is not None and len(names) != options.expect:
        raise RefusedError(f"found {len(names)} files, expected {options.expect}")
    if output != STDOUT and any(is_same(output, name) for name in names):
        raise UnusableFileError(options.output, "a file that is not read as well")
    check_writable(output)
    runs = read_all(names, merge.attempt_of)
    for line in merge.disagreements(runs):
        print(line, file=sys.stderr)
    tests = list(merge.merged(runs))
    document.write_encoded(output, tests, merge.joined_environment(runs))
    if output != STDOUT:
        different = len({attempt.nodeid for run in runs for attempt in run.tests})
        print(f"{options.output}: {different} tests of {len(names)} files")
    return 0


@without_collector()
def run_approve(options: Options) -> int:
    """Raise the limits of markers that a run broke: print the diff, or with --write change the files."""
    from pytest_imu.history import approve, wishes

    runs = [read(name, wishes.measured_of) for name in named_files(options.files)]
    tests = (test for run in runs for test in run.tests)
    wished = wishes.Wishes(
        headroom_percent=options.headroom,
        tighten=options.tighten,
        add=options.add,
        only=options.only,
        min_mib=options.min_mib,
    )
    planned = approve.plan(
        tests, merge.joined_environment(runs), wished, lambda name: Path(name).read_bytes()
    )
    edited = {path: file.edited(edits) for path, (file, edits) in planned.files.items()}
    if options.write:
        replace_all(edited)
    else:
        for path, (file, _) in planned.files.items():
            sys.stdout.writelines(file.diff(path, edited[path]))
    for line in planned.left_alone:
        print(line, file=sys.stderr)
    done = "changed" if options.write else "to change; --write changes them"
    print(f"{plural(len(edited), 'file')} {done}", file=sys.stderr)
    return 0


def is_same(path: Path, name: str) -> bool:
    """Tell whether a file to write is one of those to read."""
    return path.exists() and name != str(STDOUT) and path.samefile(name)


def _width() -> int:
    return shutil.get_terminal_size().columns
