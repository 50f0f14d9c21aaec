"""The verb that draws a run over time: `pytest-imu trace imu.json -o trace.json`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_imu.core.document import encode
from pytest_imu.core.invalid import InvalidValueError, RefusedError
from pytest_imu.core.outfile import check_writable, writing
from pytest_imu.core.system import without_collector
from pytest_imu.core.units import plural
from pytest_imu.history.load import UnusableFileError, named_files, read
from pytest_imu.history.trace import mprof_lines, placed, trace_events
from pytest_imu.verbs.run import is_same

MPROF, TRACE = ".dat", ".json"
EXPECTED = f"a file whose name ends in {TRACE} (for Perfetto) or {MPROF} (for mprof plot)"


def add_trace(commands: Any) -> None:  # Any: argparse has no public type for it
    """Declare the verb."""
    trace = commands.add_parser("trace", help="write a run over time, for Perfetto or mprof plot")
    trace.add_argument("files", nargs="+", help="a file of --imu-json or --imu-log, or several")
    trace.add_argument(
        "-o", "--output", required=True, type=_output, metavar="PATH", help="trace.json, or run.dat"
    )
    trace.set_defaults(run=run_trace)


@without_collector()
def run_trace(options: argparse.Namespace) -> int:
    """Write what Perfetto or `mprof plot` shows."""
    names, output = named_files(options.files), options.output
    if any(is_same(output, name) for name in names):
        raise UnusableFileError(str(output), "another file to write than those to read")
    check_writable(output)
    found = [(name, test) for name in names for test in read(name, placed).tests]
    # Workers of several runs may have one name.
    tests = [
        test if len(names) == 1 else replace(test, worker=f"{name} {test.worker}")
        for name, test in found
        if test is not None
    ]
    if len(tests) < len(found):
        left_out = plural(len(found) - len(tests), "test")
        print(f"pytest-imu: {left_out} left out: when it began is not known", file=sys.stderr)
    if not tests:
        raise RefusedError("there is no test to draw")
    with writing(output) as file:
        if output.suffix == MPROF:
            file.writelines(f"{line}\n" for line in mprof_lines(tests))
        else:
            file.write('{"displayTimeUnit": "ms", "traceEvents": [')
            for number, event in enumerate(trace_events(tests)):
                file.write((",\n" if number else "\n") + encode(event))
            file.write("\n]}\n")
    print(f"{output}: {plural(len(tests), 'test')}")
    return 0


def _output(text: str) -> Path:
    path = Path(text)
    if path.suffix not in (MPROF, TRACE):
        raise argparse.ArgumentTypeError(str(InvalidValueError(text, EXPECTED)))
    return path
