"""`pytest-imu html`: the page of a run that wrote its numbers with `--imu-json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytest_imu.core.outfile import STDOUT, check_writable, writing
from pytest_imu.core.system import without_collector
from pytest_imu.core.units import plural
from pytest_imu.history.load import UnusableFileError, named_files
from pytest_imu.history.merge import joined_environment
from pytest_imu.verbs.arguments import FILES, add_increase
from pytest_imu.verbs.run import Options, compared_with, is_same, read_rows, settings_of, status

USUAL_PATH = "imu.html"


def add_verb(commands: Any) -> None:  # Any: argparse has no public type for it
    """Declare the verb."""
    html = commands.add_parser("html", help="make a page of a run, to look at in a browser")
    html.add_argument("files", nargs="+", help=f"{FILES}, or of --imu-log")
    html.add_argument("--base", help="the earlier run to compare it with")
    add_increase(html)
    html.add_argument(
        "-o", "--output", default=USUAL_PATH, metavar="PATH", help=f"the file (default: {USUAL_PATH})"
    )
    html.set_defaults(run=run_html)


@without_collector()
def run_html(options: Options) -> int:
    """Write the page."""
    from pytest_imu.html.page import page, templates
    from pytest_imu.html.run import PageRun

    templates()
    names, output = named_files(options.files), Path(options.output)
    read = [*names, *(named_files([options.base]) if options.base else [])]
    if output != STDOUT and any(is_same(output, one) for one in read):
        raise UnusableFileError(options.output, "another file to write than those to read")
    check_writable(output)
    runs = read_rows(names)
    environment, comparison = joined_environment(runs), compared_with(options, names)
    run = PageRun(
        attempts=[row for one in runs for row in one.tests],
        environment=environment,
        comparison=comparison,
    )
    with writing(output) as file:
        file.write(page(run, settings_of(environment)))
    if output != STDOUT:
        print(f"{output}: {plural(len(run.rows), 'test')}")
    return 0 if comparison is None else status(comparison)
