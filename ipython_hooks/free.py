"""`%imu free`: let go of what the shell holds for nobody, and say what each step gave back."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ipython_hooks import tracebacks
from ipython_hooks.records import difference
from pytest_imu.core.memory.platforms import rss_bytes_or_none
from pytest_imu.core.memory.trim import find_malloc_trim
from pytest_imu.core.units import align_right, format_mib

if TYPE_CHECKING:
    from ipython_hooks.session import Session

NUMBERED = re.compile(r"_\d+")
FIRST = "freed before"


def free(session: Session) -> list[str]:
    """Carry out the steps; return a line for each, and the total."""
    steps: dict[str, Callable[[Any], object]] = {
        FIRST: lambda _: None,
        "garbage": lambda _: None,
        "tracebacks": tracebacks.forget,
        "Out, _ and the like": _forget_outputs,
    }
    trim = find_malloc_trim() or (lambda: None)
    decimals = session.options.decimals
    totals_bytes = [rss_bytes_or_none()]
    for what, step in steps.items():
        step(session.shell)
        if what != FIRST:
            gc.collect()  # frames are often parts of circles
        trim()
        totals_bytes.append(rss_bytes_or_none())
    won = [difference(before, after) for before, after in pairwise(totals_bytes)]
    session.watcher.total_bytes = total_bytes = totals_bytes[-1]
    sizes = align_right([(format_mib(one, decimals=decimals),) for one in won])
    return [
        *(f"{size} MiB  {what}" for size, what in zip(sizes, steps, strict=True)),
        f"total RAM usage {format_mib(total_bytes, decimals=decimals)} MiB",
    ]


def _forget_outputs(shell: Any) -> None:
    """Let go of the values that the shell keeps of its own: `Out`, `_1`, `_`, `__`, `___`."""
    hook = shell.displayhook
    shown = [hook._, hook.__, hook.___]
    if hook.do_full_cache:
        hook.flush()
    for namespace in (shell.user_ns, shell.user_ns_hidden):  # of the second it forgets to think
        for name in ("_", "__", "___"):
            if any(namespace.get(name) is value for value in shown):
                namespace[name] = ""
    gone = [name for name in shell.user_ns_hidden if NUMBERED.fullmatch(name)]
    for name in gone:  # IPython 8 puts them here too
        if name not in shell.user_ns:
            del shell.user_ns_hidden[name]
    result = getattr(shell, "last_execution_result", None)
    if result is not None:
        result.result = None
