"""Makes the page: one text that asks nobody for anything, in ASCII, whatever its tests are called."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_imu.core.invalid import RefusedError
from pytest_imu.core.units import printable
from pytest_imu.html.columns import Column, columns_of
from pytest_imu.html.headlines import groups_of, remarks_of, sentence
from pytest_imu.html.parts import parts_of
from pytest_imu.html.picture import Picture, picture_of
from pytest_imu.html.places import bars_of
from pytest_imu.html.run import PageRun
from pytest_imu.settings import Settings

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).parent / "templates"
IN_THE_PAGE = 1000
"""So many tests stand in the page as they are shown; more are text, of which rows are made as needed."""
NEEDS_JINJA = "the page needs Jinja2: pip install 'pytest-imu[html]'"
BETWEEN_TAGS = re.compile(r"\n\s*")
HIDDEN_KEYS = ("packages", "plugins", "sources")
_encode = json.JSONEncoder(separators=(",", ":")).encode  # bound here: a test may replace it
DANGEROUS = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


@functools.cache
def templates() -> dict[str, jinja2.Template]:
    """Return the page's templates, read and compiled once; raises RefusedError."""
    try:
        import jinja2
    except ImportError:
        raise RefusedError(NEEDS_JINJA) from None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters["code"] = _in_script
    for name in ("page.css", "page.js"):
        text = TEMPLATES.joinpath(name).read_text(encoding="ascii")
        environment.globals[name.replace(".", "_")] = environment.filters["safe"](text)
    return {name: environment.get_template(name) for name in ("page.html", "test.html")}


def page(run: PageRun, settings: Settings) -> str:
    """Return the page of a run; raises RefusedError."""
    known = templates()
    columns, picture = columns_of(run), picture_of(run)
    tests = [
        # A line each, for the script; no text has a new line in it.
        BETWEEN_TAGS.sub("", known["test.html"].render(place=place, part=part, columns=columns))
        for place, part in enumerate(parts_of(run))
    ]
    text = known["page.html"].render(
        began=_began(run),
        sentence=sentence(run, picture),
        groups=groups_of(run),
        remarks=remarks_of(run, settings),
        environment=_environment(run),
        picture=picture,
        bars=bars_of(run.attempts),
        columns=columns,
        tests=_Html("\n".join(tests[:IN_THE_PAGE])),
        rest=_Html("\n".join(tests[IN_THE_PAGE:])),
        left_out=max(0, len(tests) - IN_THE_PAGE),
        outcomes=list(dict.fromkeys(row.outcome or "interrupted" for row in run.rows)),
        has_budgets=any(row.verdicts for row in run.rows),
        has_base=run.comparison is not None,
        data=_data(run, columns, picture),
    )
    return text.encode("ascii", "xmlcharrefreplace").decode("ascii")


class _Html(str):
    """A text that is HTML already."""

    __slots__ = ()

    def __html__(self) -> str:
        return self


def _shown(value: Any) -> Any:  # Any: what templates have to show
    """Return a value with everything in its text escaped that is not to be seen, or moves what is."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return printable(value)
    return value


def _in_script(value: Any) -> _Html:  # Any: what becomes JSON
    """Return JSON that stands in a script element and cannot end it, nor be taken for anything else."""
    return _Html(re.sub("[<>&]", lambda match: DANGEROUS[match[0]], _encode(value)))


def _began(run: PageRun) -> str:
    """Return when the run began, to the minute; nothing where that is not known."""
    texts = [row.start.text for row in run.attempts if row.start is not None]
    return min(texts)[:16].replace("T", " ") + " UTC" if texts else ""


def _environment(run: PageRun) -> list[tuple[str, str]]:
    """Return what the numbers depend on, as names and values."""
    known = [
        (key.replace("_", " "), "n/a" if value is None else str(value))
        for key, value in run.environment.items()
        if key not in HIDDEN_KEYS
    ]
    packages = run.environment.get("packages") or {}
    named = ", ".join(f"{name} {version}" for name, version in packages.items())
    return [*known, ("packages", named)] if named else known


def _data(run: PageRun, columns: Sequence[Column], picture: Picture | None) -> dict[str, Any]:
    """Return what the script sorts, filters and finds tests by."""
    grew = set()
    if run.comparison is not None:
        grew = {test.nodeid for test in run.comparison.tests if test.status == "grew"}
    return {
        "keys": [[cell.key for cell in column.cells] for column in columns],
        "titles": [column.title for column in columns],
        "grew": [int(row.nodeid in grew) for row in run.rows],
        "names": [printable(row.nodeid) for row in run.rows[IN_THE_PAGE:]],
        "spans": []
        if picture is None
        else [list(column) for column in zip(*picture.spans, strict=True)],
    }
