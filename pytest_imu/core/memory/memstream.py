"""C functions of this process, and what they write to a stream: caught in memory, in no file."""

from __future__ import annotations

import functools
from typing import Any


def written_by(name: str, *numbers: int) -> bytes | None:
    """Return what the process's own C function *name* writes, or None where there is no such function.

    It is called with *numbers*, each a C int, and the stream as its last argument. Where the memory for
    a stream is not to be had it writes nothing.
    """
    tell, open_memstream = c_function(name), c_function("open_memstream")
    if tell is None or open_memstream is None:
        return None
    import ctypes

    open_memstream.restype = ctypes.c_void_p
    text, length = ctypes.c_void_p(), ctypes.c_size_t()
    stream = ctypes.c_void_p(open_memstream(ctypes.byref(text), ctypes.byref(length)))
    if not stream:
        return b""
    tell(*map(ctypes.c_int, numbers), stream)
    c_function("fclose")(stream)
    try:
        return ctypes.string_at(text.value or 0, length.value)
    finally:
        c_function("free")(text)


@functools.cache  # each function that ctypes makes is a cycle of references, 0.8 KiB
def c_function(name: str) -> Any:  # Any: a type that ctypes has no public name for
    """Return the function as an object of our own, whose types are nobody else's; None without one.

    While it is called no other thread of Python's runs.
    """
    try:
        import ctypes

        return ctypes.pythonapi[name]
    except (ImportError, OSError, AttributeError, TypeError):
        return None  # another interpreter or C library, or Windows
