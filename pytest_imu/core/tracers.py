"""Who else is watching: tracers and profilers, whose own memory no reading can tell from the block's."""

from __future__ import annotations

import sys
import threading

_MONITORING_TOOLS = range(6)


def active_tracer() -> str | None:
    """Return what traces this process, "coverage" or "pdb, tracemalloc" say; None if nothing does.

    Asked are the trace and profile functions of this thread and of new ones, `sys.monitoring`'s tools
    (Python 3.12) and tracemalloc.
    """
    functions = (sys.gettrace(), threading.gettrace(), sys.getprofile(), threading.getprofile())
    names = [_name_of(function) for function in functions if function is not None]
    if sys.version_info >= (3, 12):
        tools = map(sys.monitoring.get_tool, _MONITORING_TOOLS)
        names += [str(tool).removesuffix(".py") for tool in tools if tool is not None]
    tracemalloc = sys.modules.get("tracemalloc")
    if tracemalloc is not None and tracemalloc.is_tracing():
        names.append("tracemalloc")
    return ", ".join(dict.fromkeys(names)) or None


def _name_of(function: object) -> str:
    """Return the package that a trace function comes from, or its class's."""
    owner = getattr(function, "__self__", None)  # a debugger's is a method of its own
    for candidate in (type(owner) if owner is not None else function, type(function)):
        module = getattr(candidate, "__module__", None)
        if isinstance(module, str) and module != "builtins":
            return module.partition(".")[0]
    return getattr(function, "__qualname__", type(function).__name__)
