"""coverage.py's data on its way home from a child, so that no file of it lies about."""

from __future__ import annotations

import base64
import sys
import warnings
from collections.abc import Mapping
from typing import Any


def begin_in_nursery() -> None:
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
        # A fork's new data does not know of which kind it is, if the old data did.
        return {"arcs": data.has_arcs(), "dump": base64.b64encode(data.dumps()).decode("ascii")}
    except Exception as error:  # noqa: BLE001 - no fault of collecting reaches the test
        return {"fault": f"{type(error).__name__}: {error}"}


def take_in(plain: Mapping[str, Any]) -> str | None:
    """Add what a child has collected to this process's own; return why that was not possible."""
    coverage = _current()
    if coverage is None or "fault" in plain:
        return plain.get("fault")
    try:
        _add(coverage.get_data(), plain)
    except Exception as error:  # noqa: BLE001 - as in collected()
        return f"{type(error).__name__}: {error}"
    return None


def _add(into: Any, plain: Mapping[str, Any]) -> None:  # Any: coverage.py need not be installed
    """Add it context by context, through what collecting itself calls.

    coverage.py's own `update()` leaves the hash as it was by which `combine` takes the data of one
    worker for a double of another's, and drops it.
    """
    from coverage import CoverageData  # noqa: PLC0415 - it is loaded, for it is collecting

    data = CoverageData(no_disk=True)
    data.loads(base64.b64decode(plain["dump"]))
    files = data.measured_files()
    before = getattr(into, "_current_context", None)
    for context in data.measured_contexts() if files else ():
        data.set_query_context(context)
        into.set_context(context)
        if plain["arcs"]:
            into.add_arcs({name: data.arcs(name) or [] for name in files})
        else:
            into.add_lines({name: data.lines(name) or [] for name in files})
    into.set_context(before)
    tracers = {name: data.file_tracer(name) for name in files}
    into.add_file_tracers({name: tracer for name, tracer in tracers.items() if tracer})
    if hasattr(data, "close"):  # the oldest that pytest-cov takes have none
        data.close()


def _current() -> Any:  # Any: as above
    module = sys.modules.get("coverage")
    return None if module is None else module.Coverage.current()
