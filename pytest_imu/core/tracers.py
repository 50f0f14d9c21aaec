"""Who else is watching: tracers and profilers, whose own memory no reading can tell from the block's."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

from pytest_imu.core import children

_MONITORING_TOOLS = range(6)


def active_tracer() -> str | None:
    """Return what traces this process, "coverage" or "pdb, tracemalloc" say; None if nothing does.

    Asked are the trace and profile functions of this thread and of new ones, `sys.monitoring`'s tools
    (Python 3.12) and tracemalloc.
    """
    names = dict.fromkeys(_names())
    return ", ".join(names) if names else None


def _names() -> Iterator[str]:
    for function in (sys.gettrace(), threading.gettrace(), sys.getprofile(), threading.getprofile()):
        if function is not None:
            yield _name_of(function)
    monitoring = getattr(sys, "monitoring", None)
    if monitoring is not None:
        for tool in _MONITORING_TOOLS:
            if (name := monitoring.get_tool(tool)) not in (None, children.TOOL_NAME):
                yield str(name).removesuffix(".py")
    tracemalloc = sys.modules.get("tracemalloc")
    if tracemalloc is not None and tracemalloc.is_tracing():
        yield "tracemalloc"


def _name_of(function: object) -> str:
    """Return the package that a trace function comes from, or its class's."""
    owner = getattr(function, "__self__", None)  # a debugger's is a method of its own
    for candidate in (type(owner) if owner is not None else function, type(function)):
        module = getattr(candidate, "__module__", None)
        if isinstance(module, str) and module != "builtins":
            return module.partition(".")[0]
    return getattr(function, "__qualname__", type(function).__name__)
