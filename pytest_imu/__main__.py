"""Ask this machine what it can measure, or work on files of pytest --imu-json."""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import os
import sys
from collections.abc import Sequence

from pytest_imu.core.invalid import InvalidValueError, RefusedError, parse_number, shown
from pytest_imu.html.verb import add_verb
from pytest_imu.verbs.arguments import add_verbs
from pytest_imu.verbs.trace import add_trace

UNUSABLE = 2
"""What a verb exits with where it cannot do what was asked."""
BROKEN_PIPE = 141
"""What a shell says of a program that was ended by SIGPIPE."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of tests may have any character
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads this has read enough; Python's own flush, at the end, shall not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except RefusedError as error:
        print(f"pytest-imu: {error}", file=sys.stderr)
        return UNUSABLE
    except OSError as error:
        name, reason = shown(error.filename or "standard output"), error.strerror or error
        print(f"pytest-imu: {name}: {reason}", file=sys.stderr)
        return UNUSABLE
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pytest-imu", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    doctor = commands.add_parser("doctor", help="show what can be measured, and how to fix the rest")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.set_defaults(run=_doctor)
    perf = commands.add_parser("perf", help="count one event with perf stat")
    perf.add_argument(
        "--event", type=_event, default="cache-misses", help="the event to count (default: cache-misses)"
    )
    perf.add_argument("--seconds", type=_seconds, default=1.0, help="how long to count (default: 1)")
    perf.add_argument("--pid", type=_pid, help="the process to count (default: this one, kept busy)")
    perf.set_defaults(run=_perf)
    add_verbs(commands)
    add_verb(commands)
    add_trace(commands)
    for verb in commands.choices.values():
        verb.description = verb.get_default("run").__doc__
    return parser


def _event(text: str) -> str:
    from pytest_imu.core.counters.source import check_event

    try:
        return check_event(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if (seconds := parse_number(text)) > 0:
            return seconds
    raise argparse.ArgumentTypeError(str(InvalidValueError(text, "a number of seconds, more than 0")))


def _pid(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(str(InvalidValueError(text, "the id of a process")))
    return int(text)


def _doctor(options: argparse.Namespace) -> int:
    """Try what this machine can measure, and say how to fix what it cannot."""
    import json

    from pytest_imu.doctor import checks as doctor

    checks = list(doctor.examine())
    if options.json:
        print(json.dumps(doctor.document(checks), indent=1))
    else:
        print("\n".join(doctor.text_lines(checks)))
    return 0 if doctor.memory_can_be_measured(checks) else 1


def _perf(options: argparse.Namespace) -> int:
    """Count one event with perf stat, and print the samples and the rate."""
    if sys.platform != "linux":
        print(f"perf is part of Linux, and this is {sys.platform}", file=sys.stderr)
        return 1
    from pytest_imu.core.counters.source import CannotCountError
    from pytest_imu.doctor.perf_trial import trial

    try:
        emit = functools.partial(print, flush=True)
        trial(options.event, seconds=options.seconds, pid=options.pid, emit=emit)
    except CannotCountError as error:
        print(f"perf: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
