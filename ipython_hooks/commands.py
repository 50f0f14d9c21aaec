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
    one_of,
    path_of,
    require_nothing,
    split_run_options,
    unwritable,
)
from ipython_hooks.limit import LimitUnavailableError
from ipython_hooks.records import largest
from ipython_hooks.repeat import Repeated, repeat
from pytest_imu.core.counters.source import CACHE_MISSES, check_event
from pytest_imu.core.outfile import STDOUT, writing
from pytest_imu.core.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from ipython_hooks.session import Session

TOP_DEFAULT = 5


def run(session: Session, line: str) -> Any:
    """Carry out one line; without a word, say how things stand."""
    word, _, rest = line.strip().partition(" ")
    command = COMMANDS.get(word or "status")
    if command is None:
        message = f"%imu has no command {word!r}; it has {', '.join(COMMANDS)}. %imu? explains them"
        raise CommandError(message)
    return command(session, rest.strip())


def _on(session: Session, rest: str) -> None:
    require_nothing("on", rest)
    session.start()
    session.say(["reporting after each command; %imu off stops it"])


def _off(session: Session, rest: str) -> None:
    require_nothing("off", rest)
    session.stop()
    session.say(["not reporting; %imu on starts again"])


def _status(session: Session, rest: str) -> None:
    require_nothing("status", rest)
    limit = session.limit.total_bytes
    counted = ", ".join(session.counters.events) if session.counters else "nothing"
    source = "" if session.counters is None else f" ({session.counters.label}{_caches()})"
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


def _caches() -> str:
    from pytest_imu.core.counters.choice import simulated_caches

    caches = simulated_caches()
    return "" if caches is None else f" {caches}"


def _peaks() -> str:
    from pytest_imu.core.memory.source import peak_source

    try:
        return peak_source().label
    except Exception as error:  # noqa: BLE001 - whatever the platform throws, it is the answer
        return f"n/a ({type(error).__name__}: {error})"


def _perf(session: Session, rest: str) -> None:
    words = rest.split()
    if words == ["off"]:
        session.count(())
        session.options.raw_samples = False
        session.say(["counting nothing"])
        return
    raw = "--raw" in words
    counted = session.counters.events if session.counters else (CACHE_MISSES,)
    names = [word for word in words if word not in ("on", "--raw")] or counted
    try:
        events = [check_event(event) for name in names for event in name.split(",")]
    except ValueError as error:
        message = f"%imu perf: {error}"
        raise CommandError(message) from None
    if "off" in events:
        message = "%imu perf off takes nothing more"
        raise CommandError(message)
    if raw:
        session.options.raw_samples = True
    session.count(tuple(dict.fromkeys(events)))
    source = "" if session.counters is None else f"{session.counters.label}{_caches()}"
    session.say([f"counting {', '.join(events)} in each command with {source}; %imu perf off stops it"])


def _live(session: Session, rest: str) -> None:
    session.show_live(on=one_of("live", rest, ("on", "off")) == "on")


def _style(session: Session, rest: str) -> None:
    session.options.style = one_of("style", rest, ("auto", "html", "text"))


def _last(session: Session, rest: str) -> None:
    require_nothing("last", rest)
    if not session.watcher.history:
        session.say(["no command was measured yet"])
        return
    options = session.options
    session.say(
        wording.report_lines(
            session.watcher.history[-1],
            decimals=options.decimals,
            command_width=options.command_width,
            raw_samples=options.raw_samples,
        )
    )


def _history(session: Session, rest: str) -> None:
    require_nothing("history", rest)
    _print_table(session, session.watcher.history)


def _top(session: Session, rest: str) -> None:
    count = int(rest) if rest.isdecimal() else (TOP_DEFAULT if not rest else 0)
    if count < 1:
        message = f"%imu top: {rest!r} is not accepted; a whole number from 1 is"
        raise CommandError(message)
    print("took the most:")  # noqa: T201 - the answer to the person at the prompt
    _print_table(session, largest(session.watcher.history, by="peak_bytes", count=count))
    print("kept the most:")  # noqa: T201 - the answer to the person at the prompt
    _print_table(session, largest(session.watcher.history, by="delta_bytes", count=count))


def _print_table(session: Session, records: Sequence[Any]) -> None:
    options = session.options
    table = wording.history_table(
        records, decimals=options.decimals, command_width=options.command_width
    )
    print(table)  # noqa: T201 - the answer to the person at the prompt


def _save(session: Session, rest: str) -> None:
    from ipython_hooks import saving

    path = path_of("save", rest)
    try:
        saving.save(path, session.watcher.history)
    except OSError as error:
        raise CommandError(unwritable("%imu save", path, error)) from None
    if path != STDOUT:  # what reads the JSON there can do without words of ours
        session.say([f"{len(session.watcher.history)} commands saved to {path}"])


def _plot(session: Session, rest: str) -> Any:
    from ipython_hooks import plot

    path = path_of("plot", rest) if rest else None
    try:
        return plot.plot(session.watcher.history, path)
    except ImportError:
        message = "%imu plot needs matplotlib: pip install 'pytest-imu[plot]'"
        raise CommandError(message) from None
    except OSError as error:
        raise CommandError(unwritable("%imu plot", path, error)) from None
    except ValueError as error:  # a format that matplotlib does not have; it says which it has
        message = f"%imu plot: {error}"
        raise CommandError(message) from None


def _limit(session: Session, rest: str) -> None:
    if rest == "off":
        session.limit.lift()
        session.say(["no limit"])
        return
    try:
        session.limit.set(parse_bytes(rest))
    except (ValueError, LimitUnavailableError) as error:
        message = f"%imu limit: {error}"
        raise CommandError(message) from None
    session.say([f"an allocation that takes this process past {rest} raises MemoryError"])


def _run(session: Session, rest: str) -> Repeated:
    options, statement = split_run_options("%imu run", rest)
    if not statement:
        message = "%imu run needs a statement: %imu run [-r N] STATEMENT"
        raise CommandError(message)
    return _measured(session, statement, runs=options)


def measure_cell(session: Session, line: str, cell: str) -> Repeated | None:
    """Carry out `%%imu [-r N] [-q] [-j FILE]`."""
    options = cell_options(line)
    measured = _measured(session, cell, runs=options.r)
    if options.j is not None:
        try:
            with writing(options.j) as file:
                file.write(json.dumps(measured.to_dict(), indent=1) + "\n")
        except OSError as error:
            raise CommandError(unwritable("%%imu -j", options.j, error)) from None
    return None if options.q or options.j == STDOUT else measured


def _measured(session: Session, source: str, *, runs: int) -> Repeated:
    shell = session.shell
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT  # to tell it from a mistake
    code = compile(shell.transform_cell(source), "<imu>", "exec", flags)
    if code.co_flags & inspect.CO_COROUTINE:
        message = "%imu run and %%imu take no await outside a function; a plain command does"
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


COMMANDS: dict[str, Callable[[Session, str], Any]] = {
    "on": _on,
    "off": _off,
    "status": _status,
    "perf": _perf,
    "live": _live,
    "style": _style,
    "last": _last,
    "history": _history,
    "top": _top,
    "save": _save,
    "plot": _plot,
    "run": _run,
    "limit": _limit,
}
