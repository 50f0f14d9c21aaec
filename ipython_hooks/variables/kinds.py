"""What a value is, in a few words; nothing of the value's own is run but of libraries that are known."""

from __future__ import annotations

from collections import deque
from typing import Any

from ipython_hooks.variables.holders import is_of_library
from pytest_imu.core.units import printable

WITH_LENGTH: tuple[Any, ...] = (str, bytes, bytearray, list, tuple, dict, set, frozenset, deque)
LONGEST_WORD = 30


def describe(value: object, size_bytes: int) -> str:
    """Return the kind of a value and how large it is, in its own units; *size_bytes* are held by it."""
    kind = type(value)
    name = printable(kind.__name__)[:LONGEST_WORD]
    base = next((one for one in WITH_LENGTH if issubclass(kind, one)), None)
    if base is not None:
        length = base.__len__(value)  # not what the value itself says
        return f"{name} of {length:,}"
    if not is_of_library(kind):
        return name
    try:
        return f"{name} {_shape(value)}{_view(value, size_bytes)}"
    except Exception:  # noqa: BLE001 - a library that is another one than we know
        return name


def _shape(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is None:
        return f"of {len(value):,}"
    text = " x ".join(f"{length:,}" for length in shape) or "of one value"
    dtype = getattr(value, "dtype", None)
    return text if dtype is None else f"{text} of {printable(str(dtype))[:LONGEST_WORD]}"


def _view(value: Any, size_bytes: int) -> str:
    """Return what has to be said of a small view that keeps much alive."""
    nbytes = getattr(value, "nbytes", None) if hasattr(value, "base") else None
    is_small_view = isinstance(nbytes, int) and value.base is not None and 2 * nbytes < size_bytes
    return ", a view that keeps all of it alive" if is_small_view else ""
