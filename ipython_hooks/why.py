"""`%imu why`: explains a command from what is known of it; nothing is run again."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from types import FunctionType
from typing import TYPE_CHECKING, Any

from ipython_hooks.notes import SHELLS_OWN_NS
from ipython_hooks.records import CommandRecord, command_text
from ipython_hooks.variables.holders import is_installed, is_program
from pytest_imu.core.memory.reusable import reused_in
from pytest_imu.core.units import MIB, format_mib, format_seconds, printable

if TYPE_CHECKING:
    from ipython_hooks.session import Session

WORTH_BYTES = MIB
"""What is less needs no explanation."""
NAMED_PERCENT = 80
"""Where names explain less than this of what was kept, the rest is said."""
MOST_FUNCTIONS = 3


def explain(record: CommandRecord, session: Session) -> list[str]:
    """Return what is known of a command's memory, and the command that shows its lines."""
    options = session.options
    number = "" if record.number is None else f"In [{record.number}]: "
    head = f"{number}{command_text(record.command, options.command_width)}"
    measurement = record.measurement
    if measurement.delta_bytes is None or measurement.peak_bytes is None:
        return [head, f"n/a: {measurement.reason}"]
    return [
        f"{head} took {format_seconds(measurement.duration_ns)}",
        *_kept(record, options.decimals),
        *_peak(record, options.decimals),
        *_what_misleads(record),
        *_offer(record, session),
    ]


def _kept(record: CommandRecord, decimals: int) -> Iterator[str]:
    """Say what it kept, and which names hold that."""
    kept_bytes = record.measurement.delta_bytes or 0
    size = format_mib(abs(kept_bytes), decimals=decimals)
    if kept_bytes <= -WORTH_BYTES:
        yield f"gave back {size} MiB"
        return
    if kept_bytes < WORTH_BYTES:
        yield "kept next to nothing"
        return
    names = ", ".join(
        f"{printable(name)} {format_mib(held, decimals=decimals)}" for name, held in record.grown
    )
    yield f"kept {size} MiB" + (f": {names}" if names else ", in no name")
    rest_bytes = kept_bytes - sum(held for _, held in record.grown)
    is_explained = rest_bytes * 100 <= (100 - NAMED_PERCENT) * kept_bytes or rest_bytes < WORTH_BYTES
    if record.measurement.imports:
        yield f"imported {', '.join(record.measurement.imports)} for the first time"
    elif names and not is_explained:
        yield f"{format_mib(rest_bytes, decimals=decimals)} of it are in no new name"


def _peak(record: CommandRecord, decimals: int) -> Iterator[str]:
    """Say what it needed, and how much of that only for a moment."""
    measurement = record.measurement
    peak_bytes, passing_bytes = measurement.peak_bytes or 0, record.above_current_bytes or 0
    sampled = ", sampled: a lower bound" if measurement.source == "sampled" else ""
    if peak_bytes < WORTH_BYTES:
        yield f"needed next to nothing at its peak{sampled}"
        return
    size = format_mib(peak_bytes, decimals=decimals)
    if passing_bytes < WORTH_BYTES:
        passing = "all that it needed is still there"
    else:
        passing = f"{format_mib(passing_bytes, decimals=decimals)} of them were gone at its end"
    yield f"needed {size} MiB at its peak{sampled}; {passing}"


def _what_misleads(record: CommandRecord) -> Iterator[str]:
    """Say what may make these numbers too small."""
    measurement = record.measurement
    reused_bytes = reused_in(measurement, max(0, record.cpu_ns - SHELLS_OWN_NS))
    if reused_bytes:
        yield f"may have used up to {format_mib(reused_bytes)} MiB more, which Python had kept free"
    if measurement.had_children:
        yield "had child processes: their memory is not in these numbers"
    if record.raised:
        yield "it raised: %imu vars shows what the error keeps alive"


def _offer(record: CommandRecord, session: Session) -> Iterator[str]:
    """Say which command shows more, where there is something to see."""
    if (record.measurement.peak_bytes or 0) < WORTH_BYTES:
        return
    shell, command = session.shell, record.command.strip()
    if command.startswith("%%"):
        return
    try:
        tree = ast.parse(shell.transform_cell(command))
    except (SyntaxError, ValueError):
        return
    functions = list(dict.fromkeys(_own_functions(tree, shell)))[:MOST_FUNCTIONS]
    if len(tree.body) > 1:
        yield "which statement it was: put %%imu lines above them"
    if functions:
        options = " ".join(f"-f {name}" for name in functions)
        is_short = "\n" not in command and not _awaits(tree)
        how = (
            f"%imu lines {options} {printable(command)}"
            if is_short
            else f"put %%imu lines {options} above it"
        )
        yield f"which line in {' and '.join(functions)}: {how}"
    elif len(tree.body) == 1 and isinstance(tree.body[0], (ast.Assign, ast.AnnAssign, ast.Expr)):
        yield "which part of it: write its parts as statements of their own, below %%imu lines"


def _awaits(tree: ast.Module) -> bool:
    return any(isinstance(node, (ast.Await, ast.AsyncFor, ast.AsyncWith)) for node in ast.walk(tree))


def _own_functions(tree: ast.Module, shell: Any) -> Iterator[str]:  # Any: shells have no common type
    """Give the functions that a command calls and that are written in Python by the person."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = _called(node.func, shell.user_ns)
            if isinstance(function, FunctionType) and not is_installed(function.__code__.co_filename):
                yield ast.unparse(node.func)


def _called(node: ast.expr, namespace: dict[str, Any]) -> object:
    """Return what a call calls, where that can be told without running anything."""
    if isinstance(node, ast.Name):
        found = namespace.get(node.id)
        return inspect.getattr_static(found, "__init__", None) if is_program(found) else found
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        owner = namespace.get(node.value.id)
        place = owner if is_program(owner) else type(owner)
        return inspect.getattr_static(place, node.attr, None)
    return None
