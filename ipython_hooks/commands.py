"""What the words behind `%imu` do."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ipython_hooks import wording
from ipython_hooks.arguments import (
    CommandError,
    cell_options,
    naming,
    one_of,
    path_of,
    split_count,
    whole_number,
)
from ipython_hooks.leaks import leaks
from ipython_hooks.lines.functions import follow
from ipython_hooks.options import STYLES
from ipython_hooks.repeat import Repeated, repeat
from ipython_hooks.running import Statement, at_once
from ipython_hooks.top import top_lines
from pytest_imu.core.counters.source import CACHE_MISSES, check_event
from pytest_imu.core.invalid import InvalidValueError
from pytest_imu.core.memory.container import whole_bytes
from pytest_imu.core.memory.platforms import rss_bytes_or_none
from pytest_imu.core.outfile import STDOUT, writing
from pytest_imu.core.sizes import parse_cap

if TYPE_CHECKING:
    from ipython_hooks.session import Session

TOP_DEFAULT, VARS_DEFAULT = 5, 10


def run(session: Session, line: str) -> Any:
    """Carry out one line; without a word, say how things stand."""
    word, _, rest = line.strip().partition(" ")
    word, rest = word or "status", rest.strip()
    if word in ALONE:
        if rest:
            raise CommandError(InvalidValueError(rest, "nothing").of(f"%imu {word}"))
        return ALONE[word](session)
    if word in WITH_WORDS:
        return WITH_WORDS[word](session, rest)
    expected = f"{', '.join((*ALONE, *WITH_WORDS))} (%imu? explains them)"
    raise CommandError(InvalidValueError(word, expected).of("%imu"))


def _on(session: Session) -> None:
    session.start()
    session.say(["reporting after each command; %imu off stops it"])


def _off(session: Session) -> None:
    session.stop()
    session.say(["not reporting; %imu on starts again"])


def _status(session: Session) -> None:
    counted = ", ".join(session.counters.events) if session.counters else "nothing"
    source = f" ({_source(session)})" if session.counters else ""
    session.say(
        [
            f"reporting: {'on' if session.watching else 'off'}",
            f"peaks: {_peaks()}",
            f"counting: {counted}{source}",
            f"live: {'on' if session.live else 'off'}",
            f"limit: {session.limit.describe()}",
            f"measured: {len(session.watcher.history)} commands",
        ]
    )


def _source(session: Session) -> str:
    """Return what counts events, and in which caches where those are simulated."""
    from pytest_imu.core.counters.choice import simulated_caches

    caches = simulated_caches()
    label = session.counters.label if session.counters else ""
    return label if caches is None else f"{label} {caches}"


def _peaks() -> str:
    from pytest_imu.core.memory.source import NotMeasuredError, peak_source

    try:
        return peak_source().label
    except NotMeasuredError as error:
        return f"none ({error})"
    except Exception as error:  # noqa: BLE001 - whatever the platform throws, it is the answer
        return f"n/a ({type(error).__name__}: {error})"


def _perf(session: Session, rest: str) -> None:
    words = rest.split()
    if words == ["off"]:
        session.count(())
        session.options.raw_samples = False
        session.say(["counting nothing"])
        return
    counted = session.counters.events if session.counters else (CACHE_MISSES,)
    names = [word for word in words if word not in ("on", "--raw")] or counted
    with naming("%imu perf"):
        events = tuple(dict.fromkeys(check_event(event) for name in names for event in name.split(",")))
        if "off" in events:
            raise InvalidValueError(rest, "events, or off alone")
        uncounted = session.count(events)
    if "--raw" in words:
        session.options.raw_samples = True
    how = f"in each command with {_source(session)}; %imu perf off stops it"
    session.say([f"counting {', '.join(events)} {how}", *uncounted])


def _live(session: Session, rest: str) -> None:
    with naming("%imu live"):
        word = one_of(rest, ("on", "off"))
    session.show_live(on=word == "on")


def _style(session: Session, rest: str) -> None:
    with naming("%imu style"):
        session.options.style = one_of(rest, STYLES)


def _last(session: Session) -> None:
    history = session.watcher.history
    session.say(
        wording.last_lines(history[-1], session.options) if history else [wording.NOTHING_MEASURED]
    )


def _why(session: Session) -> None:
    from ipython_hooks.why import explain

    history = session.watcher.history
    session.say(explain(history[-1], session) if history else [wording.NOTHING_MEASURED])


def _history(session: Session, rest: str) -> None:
    history = session.watcher.history
    with naming("%imu history"):
        count = whole_number(rest) if rest else len(history)
    _print_table(session, history[max(0, len(history) - count) :])


def _free(session: Session) -> None:
    from ipython_hooks.free import free

    session.say(free(session))


def _help(session: Session) -> None:
    print(inspect.getdoc(session.shell.find_line_magic("imu")))  # noqa: T201 - the answer to the person


def _top(session: Session, rest: str) -> None:
    with naming("%imu top"):
        count = whole_number(rest) if rest else TOP_DEFAULT
    session.print_lines(top_lines(session, count))


def _print_table(session: Session, records: Sequence[Any]) -> None:
    table = wording.history_table(records, session.options, columns=session.columns)
    session.print_lines([table])


def _vars(session: Session, rest: str) -> None:
    from ipython_hooks.variables import rows

    with naming("%imu vars"):
        count = whole_number(rest) if rest else VARS_DEFAULT
    with session.meter() as now:
        pass
    width = shutil.get_terminal_size().columns
    look = rows.look_at(session.shell)
    session.print_lines(rows.table(look, top=count, total_bytes=now.after_bytes, width=width))


def _save(session: Session, rest: str) -> None:
    from ipython_hooks import saving

    with naming("%imu save"):
        path = path_of(rest)
    with naming("%imu save", path):
        saving.save(path, session.watcher.history)
    if path != STDOUT:  # what reads the JSON there can do without words of ours
        session.say([f"{len(session.watcher.history)} commands saved to {path}"])


def _plot(session: Session, rest: str) -> Any:
    from ipython_hooks import plot

    with naming("%imu plot"):
        path = path_of(rest) if rest else None
    try:
        with naming("%imu plot", path):  # a format that matplotlib does not have; it says which it has
            return plot.plot(session.watcher.history, path)
    except ImportError:
        raise CommandError("%imu plot needs matplotlib: pip install 'pytest-imu[plot]'") from None


def _limit(session: Session, rest: str) -> None:
    limit = session.limit
    if rest == "off":
        limit.lift()
    elif rest:
        with naming("%imu limit"):
            limit.set(parse_cap(rest).of(whole_bytes()))
    session.say([f"limit: {limit.describe()}"])


def _run(session: Session, rest: str) -> Repeated:
    runs, statement = split_count(rest, "-r", "%imu run", usual=1)
    return at_once(_measured(session, Statement(session.shell, statement), runs=runs, shows=True))


async def measure_cell(
    session: Session, line: str, cell: str, *, lines_above: int = 1
) -> Repeated | None:
    """Carry out `%%imu [-r N] [-q] [-j FILE]`, or `%%imu lines`."""
    if line.split()[:1] == ["lines"]:
        session.cell_lines.begin(line, cell)
        return None
    options = cell_options(line)
    quiet = options.q or options.j == STDOUT
    statement = Statement(session.shell, cell, lines_above=lines_above)
    measured = await _measured(session, statement, runs=options.r, shows=not quiet)
    if options.j is not None:
        with naming("%%imu -j", options.j), writing(options.j) as file:
            file.write(json.dumps(measured.to_dict(), indent=1) + "\n")
    return None if quiet else measured


async def _measured(session: Session, statement: Statement, *, runs: int, shows: bool) -> Repeated:
    text = statement.source.strip()
    measured, value = await repeat(text, statement.run, runs=runs, meter=session.meter)
    if shows and statement.shows_value and value is not None:
        from IPython.display import display

        display(value)  # type: ignore[no-untyped-call]  # IPython is partly typed
    del value
    session.keep_last(measured)
    session.watcher.total_bytes = rss_bytes_or_none()  # what it moved has been told
    return measured


ALONE: dict[str, Callable[[Session], None]] = {
    "on": _on,
    "off": _off,
    "status": _status,
    "help": _help,
    "last": _last,
    "why": _why,
    "free": _free,
}
WITH_WORDS: dict[str, Callable[[Session, str], Any]] = {
    "perf": _perf,
    "live": _live,
    "style": _style,
    "history": _history,
    "top": _top,
    "save": _save,
    "plot": _plot,
    "vars": _vars,
    "run": _run,
    "lines": follow,
    "limit": _limit,
    "leaks": leaks,
}
