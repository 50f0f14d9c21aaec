"""coverage.py's data on its way from a child to the session, so that no file of it lies about."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from typing import Any


def begin_in_server() -> None:
    """Let children collect in memory, before this process or a child writes any data.

    coverage.py notices a fork by itself, and begins new data under the name of the old: that would be
    the session's own file. It has no public way to say otherwise to a collection that runs.
    """
    data = getattr(_current(), "_data", None)
    if data is not None:
        data._reset()  # noqa: SLF001 - the session's file, where it is open already
        data._no_disk = True  # noqa: SLF001 - the public argument of a new CoverageData


def collected() -> dict[str, Any] | None:
    """Return what this child has collected, in plain form; None where nobody collects."""
    coverage = _current()
    if coverage is None:
        return None
    try:
        with warnings.catch_warnings():
            # That a child collected nothing is no news: pytest-cov before 7 collects there by itself.
            warnings.simplefilter("ignore")
            data = coverage.get_data()
        if not data._no_disk:  # noqa: SLF001 - another one, begun in this child, has its own file
            coverage.save()
            return None
        return {"data": _plain(data)}
    except Exception as error:  # noqa: BLE001 - no fault of collecting reaches the test
        return {"fault": f"{type(error).__name__}: {error}"}


def take_in(plain: Mapping[str, Any]) -> str | None:
    """Add what a child has collected to this process's own; return why that was not possible."""
    coverage = _current()
    if coverage is None or "fault" in plain:
        return plain.get("fault")
    try:
        _add(coverage.get_data(), plain["data"])
    except Exception as error:  # noqa: BLE001 - as in collected()
        return f"{type(error).__name__}: {error}"
    return None


def _plain(data: Any) -> dict[str, Any]:  # Any: coverage.py need not be installed
    """Return what was collected, context by context: the lines of every file, or its arcs."""
    files, has_arcs = data.measured_files(), data.has_arcs()
    read = data.arcs if has_arcs else data.lines
    by_context = {}
    for context in data.measured_contexts() if files else ():
        data.set_query_context(context)
        by_context[context] = {name: read(name) or [] for name in files}
    tracers = {name: data.file_tracer(name) for name in files}
    return {"arcs": has_arcs, "by_context": by_context, "tracers": tracers}


def _add(into: Any, plain: Mapping[str, Any]) -> None:  # Any: as above
    """Add it context by context, through what collecting itself calls.

    coverage.py's own `update()` leaves the hash as it was by which `combine` takes the data of one
    worker for a double of another's, and drops it.
    """
    before = getattr(into, "_current_context", None)
    for context, collected_there in plain["by_context"].items():
        into.set_context(context)
        if plain["arcs"]:
            into.add_arcs(collected_there)
        else:
            into.add_lines(collected_there)
    into.set_context(before)
    into.add_file_tracers({name: tracer for name, tracer in plain["tracers"].items() if tracer})


def _current() -> Any:  # Any: as above
    module = sys.modules.get("coverage")
    return None if module is None else module.Coverage.current()
