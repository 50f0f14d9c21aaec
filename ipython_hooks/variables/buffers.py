"""Buffers of libraries that are loaded: numpy, polars, pyarrow, torch, and what Python itself has.

Libraries that keep theirs in objects of Python (pandas, scipy.sparse, xarray, scikit-learn) need no
word here: whoever goes through their objects comes to the arrays.
"""

from __future__ import annotations

import gc
import mmap
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ipython_hooks.variables.held import COMPARED, Held, spread

Look = Callable[[Any, Held, list[Any]], None]
Sample = Callable[[int, Sequence[Any], Held], None]
OWNERS = (bytes, bytearray, memoryview, mmap.mmap)


def buffers_of(sample: Sample) -> list[tuple[type, Look]]:
    """Return the types of the libraries that are loaded, and how each is looked at.

    *sample* reckons what many objects hold from some of them.
    """
    found: list[tuple[type, Look]] = [(memoryview, _look_at_view), (mmap.mmap, _look_at_map)]
    for place, look in (
        ("numpy.memmap", _look_at_file),
        ("numpy.ndarray", _look_at_array(sample)),
        ("polars.Series", _look_at_polars_series),
        ("polars.DataFrame", _look_at_polars_frame),
        ("pyarrow.Buffer", _look_at_arrow_buffer),
        ("pyarrow.Array", _look_at_arrow_array),
        ("pyarrow.ChunkedArray", _look_at_arrow_chunks),
        ("pyarrow.RecordBatch", _look_at_arrow_table),
        ("pyarrow.Table", _look_at_arrow_table),
        ("torch.Tensor", _look_at_tensor),
    ):
        package, _, name = place.partition(".")
        kind = getattr(sys.modules.get(package), name, None)
        if isinstance(kind, type):
            found.append((kind, look))
    return found


def _look_at_view(value: memoryview, held: Held, left: list[Any]) -> None:  # noqa: ARG001 - what it views
    left.append(value.obj)


def _look_at_map(value: mmap.mmap, held: Held, left: list[Any]) -> None:  # noqa: ARG001 - holds no others
    if not value.closed:
        held.pieces[id(value)] = len(value)


def _look_at_file(value: Any, held: Held, left: list[Any]) -> None:
    """Leave out an array that is a file: its pages are the kernel's to drop."""


def _look_at_array(sample: Sample) -> Look:
    numpy = sys.modules.get("numpy")
    ndarray, memmap = getattr(numpy, "ndarray", ()), getattr(numpy, "memmap", ())

    def look(value: Any, held: Held, left: list[Any]) -> None:
        """Go from a view to what owns its memory."""
        array = value
        while issubclass(type(array.base), ndarray):
            array = array.base
            if issubclass(type(array), memmap):
                return
        owner = array.base
        if owner is None:
            held.pieces[id(array)] = array.nbytes
        elif type(owner) in OWNERS or gc.get_referents(owner):
            left.append(owner)
        else:  # a library's own, whose size it does not tell
            held.pieces[address(array)] = array.nbytes
        if array.dtype.hasobject and array.dtype.kind == "O":
            sample(array.size, [array.flat[place] for place in spread(array.size, COMPARED)], held)

    return look


def address(array: Any) -> tuple[str, int]:
    """Return the key of memory that no object of Python owns: where it begins."""
    return "at", array.__array_interface__["data"][0]


def _look_at_polars_series(value: Any, held: Held, left: list[Any]) -> None:  # noqa: ARG001 - holds no others
    """Take polars' word for the size; numbers tell also where they are, so that two see they share."""
    key: object = id(value)
    if value.dtype.is_numeric():
        try:
            key = address(value.to_numpy(allow_copy=False))
        except Exception:  # noqa: BLE001 - it is in several pieces, or has gaps
            key = id(value)
    held.pieces[key] = value.estimated_size()


def _look_at_polars_frame(value: Any, held: Held, left: list[Any]) -> None:
    for number, series in enumerate(value.get_columns()):
        column = Held()
        _look_at_polars_series(series, column, left)
        for key, size_bytes in column.pieces.items():
            # The series is made anew each time: its id is nobody's.
            held.pieces[(id(value), number) if key == id(series) else key] = size_bytes


def _look_at_arrow_buffer(value: Any, held: Held, left: list[Any]) -> None:  # noqa: ARG001 - as above
    while value.parent is not None:
        value = value.parent
    held.pieces["at", value.address] = value.size


def _look_at_arrow_array(value: Any, held: Held, left: list[Any]) -> None:
    for buffer in value.buffers():
        if buffer is not None:
            _look_at_arrow_buffer(buffer, held, left)
    dictionary = getattr(value, "dictionary", None)
    if dictionary is not None:
        _look_at_arrow_array(dictionary, held, left)


def _look_at_arrow_chunks(value: Any, held: Held, left: list[Any]) -> None:
    for chunk in value.iterchunks():
        _look_at_arrow_array(chunk, held, left)


def _look_at_arrow_table(value: Any, held: Held, left: list[Any]) -> None:
    for column in value.itercolumns():
        chunks: Iterator[Any] = getattr(column, "iterchunks", lambda column=column: iter((column,)))()
        for chunk in chunks:
            _look_at_arrow_array(chunk, held, left)


def _look_at_tensor(value: Any, held: Held, left: list[Any]) -> None:
    """Look at the storage, which views share, where it is in this process's memory."""
    if value.device.type == "cpu" and value.layout is sys.modules["torch"].strided:
        storage = value.untyped_storage()
        held.pieces["at", storage.data_ptr()] = storage.nbytes()
    if value.is_leaf and value.grad is not None:
        left.append(value.grad)
