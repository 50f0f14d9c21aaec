"""What the traceback of a command that raised keeps alive: the variables of the functions it was in."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Mapping
from typing import Any

PLAIN_TYPES = frozenset({bytes, bytearray, str, list, tuple, dict, set, frozenset})
MOST_VARIABLES = 1000
"""So many are looked at: an error deep in a recursion has many frames."""


def held_bytes(error: BaseException | None, namespace: Mapping[str, Any]) -> int:
    """Return what the variables in an error's frames hold, those of the person's namespace left out.

    A lower bound: what stands inside of containers and of objects of other types is not looked up.
    """
    if error is None:
        return 0
    known = set(map(id, namespace.values()))
    sizes_bytes: dict[int, int] = {}
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_locals is namespace:  # the command's own
            continue
        for value in frame.f_locals.values():
            if len(sizes_bytes) >= MOST_VARIABLES:
                return sum(sizes_bytes.values())
            owner = _owner(value)
            if known.isdisjoint((id(value), id(owner))):
                sizes_bytes[id(owner)] = _size_bytes(owner)
    return sum(sizes_bytes.values())


def forget(shell: Any) -> None:
    """Let go of the tracebacks that the interpreter and the shell keep of the last errors."""
    for error in _last_errors(shell):
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = None  # frames that were looked at hold their variables twice
        with contextlib.suppress(AttributeError):
            del error._render_traceback_  # type: ignore[attr-defined]  # ours, of `%imu run`
    sys.last_traceback = None
    for shows in (shell.InteractiveTB, shell.SyntaxTB):
        shows.tb = None


def _last_errors(shell: Any) -> list[BaseException]:
    """Return the last errors, those that they came from among them."""
    result = getattr(shell, "last_execution_result", None)
    waiting = [getattr(sys, name, None) for name in ("last_exc", "last_value")]
    waiting += [getattr(result, name, None) for name in ("error_in_exec", "error_before_exec")]
    found: list[BaseException] = []
    while waiting:
        error = waiting.pop()
        if error is not None and all(error is not one for one in found):
            found.append(error)
            waiting += [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]
    return found


def _owner(value: Any) -> Any:
    """Return what a view of an array is a view of."""
    while type(value).__module__ == "numpy" and getattr(value, "base", None) is not None:
        value = value.base
    return value


def _size_bytes(value: Any) -> int:
    """Return what a value holds itself, asked in ways that take no time."""
    if type(value) in PLAIN_TYPES:
        return sys.getsizeof(value)
    with contextlib.suppress(Exception):  # an object that is not done yet
        package = type(value).__module__.partition(".")[0]
        if package in {"numpy", "torch"}:
            return int(value.nbytes)
        if package == "pandas":
            return int(getattr(value, "nbytes", 0) or value.memory_usage().sum())
        if package == "polars":
            return int(value.estimated_size())
    return 0
