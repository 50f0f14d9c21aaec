"""What the words behind `%imu` do."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ipython_hooks import wording
from ipython_hooks.arguments import (
    CommandError,
    cell_options,
    naming,
    one_of,
    path_of,
    split_run_options,
    whole_number,
)
from ipython_hooks.leaks import leaks
from ipython_hooks.limit import parse_bytes
from ipython_hooks.options import STYLES
from ipython_hooks.records import largest
from ipython_hooks.repeat import Repeated, repeat
from pytest_imu.core.counters.source import CACHE_MISSES, check_event
from pytest_imu.core.invalid import InvalidValueError
from pytest_imu.core.outfile import STDOUT, writing
from pytest_imu.core.units import format_bytes

if TYPE_CHECKING:
    from ipython_hooks.session import Session

TOP_DEFAULT = 5


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
    limit = session.limit.total_bytes
    counted = ", ".join(session.counters.events) if session.counters else "nothing"
    source = f" ({_source(session)})" if session.counters else ""
    session.say(
        [
            f"reporting: {'on' if session.watching else 'off'}",
            f"peaks: {_peaks()}",
            f"counting: {counted}{source}",
            f"live: {'on' if session.live else 'off'}",
            f"limit: {'none' if limit is None else format_bytes(limit)}",
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
        wording.report_lines(history[-1], session.options) if history else [wording.NOTHING_MEASURED]
    )


def _history(session: Session) -> None:
    _print_table(session, session.watcher.history)


def _top(session: Session, rest: str) -> None:
    with naming("%imu top"):
        count = whole_number(rest) if rest else TOP_DEFAULT
    for what, size in (("took", "peak_bytes"), ("kept", "delta_bytes")):
        print(f"{what} the most:")  # noqa: T201 - the answer to the person at the prompt
        _print_table(session, largest(session.watcher.history, by=size, count=count))


def _print_table(session: Session, records: Sequence[Any]) -> None:
    print(wording.history_table(records, session.options))  # noqa: T201 - the answer to the person at the prompt


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
        message = "%imu plot needs matplotlib: pip install 'pytest-imu[plot]'"
        raise CommandError(message) from None


def _limit(session: Session, rest: str) -> None:
    if rest == "off":
        session.limit.lift()
        session.say(["no limit"])
        return
    with naming("%imu limit"):
        session.limit.set(parse_bytes(rest))
    session.say([f"an allocation that takes this process past {rest} raises MemoryError"])


def _run(session: Session, rest: str) -> Repeated:
    runs, statement = split_run_options(rest)
    return _measured(session, statement, runs=runs)


def measure_cell(session: Session, line: str, cell: str) -> Repeated | None:
    """Carry out `%%imu [-r N] [-q] [-j FILE]`."""
    options = cell_options(line)
    measured = _measured(session, cell, runs=options.r)
    if options.j is not None:
        with naming("%%imu -j", options.j), writing(options.j) as file:
            file.write(json.dumps(measured.to_dict(), indent=1) + "\n")
    return None if options.q or options.j == STDOUT else measured


def _measured(session: Session, source: str, *, runs: int) -> Repeated:
    shell = session.shell
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT  # to tell it from a mistake
    code = compile(shell.transform_cell(source), "<imu>", "exec", flags)
    if code.co_flags & inspect.CO_COROUTINE:
        message = "%imu run and %%imu cannot await outside a function; a plain command can"
        raise CommandError(message)
    # In the person's own namespace: what the statement assigns is there afterwards.
    measured = repeat(
        source.strip(),
        lambda: exec(code, shell.user_ns),  # noqa: S102 - it is the person's own code
        runs=runs,
        meter=session.meter,
    )
    session.keep_last(measured)
    return measured


ALONE: dict[str, Callable[[Session], None]] = {
    "on": _on,
    "off": _off,
    "status": _status,
    "last": _last,
    "history": _history,
}
WITH_WORDS: dict[str, Callable[[Session, str], Any]] = {
    "perf": _perf,
    "live": _live,
    "style": _style,
    "top": _top,
    "save": _save,
    "plot": _plot,
    "run": _run,
    "limit": _limit,
    "leaks": leaks,
}
